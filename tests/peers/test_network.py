"""Chromium behind a bad network: what is lost comes in time, what doesn't fit gets smaller for a while."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loadtest.relay import Relay
from tests.peers.browser import Page, chromium
from tests.peers.service import Service, until

SOURCE = "synthetic:?size=320x180&fps=25"  # about 1.1 Mbit/s upscaled, half of that as it is
LARGE, SMALL = 640, 320

# The relay is in the server's place before the browser hears of that, and the server hears of no address.
BEHIND = """
const ask = window.fetch;
window.fetch = (url, options) =>
  options?.method === "PATCH" ? Promise.resolve(new Response(null, { status: 204 })) : ask(url, options);
const { setRemoteDescription } = RTCPeerConnection.prototype;
RTCPeerConnection.prototype.setRemoteDescription = async function ({ type, sdp }) {
  window.peer = this;
  window.answer = sdp;
  while (!window.relayed) await new Promise((resolve) => setTimeout(resolve, 20));
  return setRemoteDescription.call(this, { type, sdp: window.relayed });
};
"""
SEEN = """
const done = arguments[0];
window.peer.getStats().then((stats) => {
  for (const entry of stats.values())
    if (entry.type === "inbound-rtp" && entry.kind === "video") return done({ ...entry });
  done({});
});
"""


class Watched:
    """A page that plays through a relay."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def seen(self) -> dict[str, Any]:
        """What the browser's statistics say of the picture."""
        return self._page.driver.execute_async_script(SEEN)

    def plays(self, width: int, timeout_s: float) -> None:
        """The picture is that wide, and moves."""
        until(lambda: self.seen().get("frameWidth") == width, f"the picture is {width} wide", timeout_s)
        frames = self.seen()["framesDecoded"]
        until(lambda: self.seen()["framesDecoded"] > frames + 25, "it moves", timeout_s)


@pytest.fixture(scope="module")
def browser(service: Service, program: Callable[[str, str], str]) -> Iterator[Page]:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, service.url) as page:
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": BEHIND})
        yield page


@contextmanager
def watching(service: Service, page: Page, relay: Relay, name: str) -> Iterator[Watched]:
    with relay, service.stream(name, SOURCE, model="awsrn-live-tiny-x2"):  # the network's is not the question
        service.wait_for(name, "running")
        page.open(name)
        answer = until(lambda: page.run("return window.answer"), "the server has answered")
        page.run("window.relayed = arguments[0]", relay.answer(answer))
        yield Watched(page)
        page.open("none")


@pytest.mark.parametrize(("loss", "rtt_s", "freezes"), [(0.05, 0.08, 1), (0.10, 0.10, 2)])
def test_what_is_lost_comes_in_time(
    service: Service, browser: Page, loss: float, rtt_s: float, freezes: int
) -> None:
    with watching(service, browser, Relay(loss=loss, rtt_s=rtt_s), "lossy") as watched:
        watched.plays(LARGE, 60)
        # It takes the loss of a second or two to know how long pictures have to be held back.
        until(lambda: watched.seen()["packetsLost"] > 20, "some have been lost")
        before, made = watched.seen(), service.show("lossy")["frames"]["total"]
        time.sleep(10)
        after, made = watched.seen(), service.show("lossy")["frames"]["total"] - made
        keys = ("packetsLost", "framesReceived", "framesDecoded", "freezeCount")
        lost, whole, shown, frozen = (after[key] - before[key] for key in keys)
        print(f"\n{loss:.0%} lost, {1000 * rtt_s:.0f} ms: {whole} of {made} frames came,", end=" ")
        print(f"{shown} were shown, {frozen} freezes")
        assert lost > 10
        assert whole > 0.95 * made
        assert shown > 0.9 * made  # the rest is what a busy machine didn't decode
        assert frozen <= freezes
        assert after["frameWidth"] == LARGE, "chance is no reason for a smaller picture"


def test_what_does_not_fit_gets_smaller_and_comes_back(service: Service, browser: Page) -> None:
    relay = Relay(rtt_s=0.04)
    with watching(service, browser, relay, "narrow") as watched:
        watched.plays(LARGE, 60)
        frozen, narrow_s = watched.seen()["freezeCount"], time.monotonic()
        relay.rate_bps = 800_000
        until(lambda: watched.seen().get("frameWidth") == SMALL, "a smaller picture", 20)
        smaller_s = time.monotonic() - narrow_s
        watched.plays(SMALL, 20)
        before, made = watched.seen(), service.show("narrow")["frames"]["total"]
        time.sleep(8)  # a trial or two, which must not be seen
        after, made = watched.seen(), service.show("narrow")["frames"]["total"] - made
        assert after["frameWidth"] == SMALL
        assert after["framesDecoded"] - before["framesDecoded"] > 0.8 * made
        said = [line for line in service.log().splitlines() if "rendition changed" in line]
        assert any("rendition=source" in line and "arrive" in line for line in said), said
        frozen, healed_s = watched.seen()["freezeCount"] - frozen, time.monotonic()
        relay.rate_bps = 0.0
        until(lambda: watched.seen().get("frameWidth") == LARGE, "the larger picture", 30)
        larger_s = time.monotonic() - healed_s
        watched.plays(LARGE, 30)
        print(f"\n0.8 Mbit/s: a smaller picture after {smaller_s:.1f} s, {frozen} freezes;", end=" ")
        print(f"the larger one {larger_s:.1f} s after the network has healed")
