"""Chromium on the page: WebRTC and HLS play, the plain picture compares, a dead worker is not noticed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from loadtest.numbered_source import NumberedSource, read
from loadtest.ways import Udp
from tests.conftest import ROOT, missing_peer
from tests.peers.browser import Page, chromium
from tests.peers.service import Service, until
from tests.ports import free_port

SOURCE, SIZE = "synthetic:?size=160x90&fps=12", "320 × 180"


@pytest.fixture(scope="module")
def browser(service: Service, program: Callable[[str, str], str]) -> Iterator[Page]:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, service.url) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    browser.console()
    yield browser
    browser.open("none")  # leaves the stream before it is deleted


def test_webrtc_plays_the_upscaled_picture(service: Service, page: Page) -> None:
    with service.stream("whep", SOURCE):
        service.wait_for("whep", "running")
        page.open("whep")
        page.plays(SIZE)
        assert page.fact("player", "over") == "WebRTC"
        assert page.picture().std() > 20
        page.find("#mute").click()
        assert page.text("#mute") == "Mute"
        assert not page.run("return document.querySelector('#upscaled').muted")
        assert page.text("#sr") == f"On\n160 × 90 → {SIZE}"
        until(lambda: page.fact("server", "viewers") == "1 WebRTC, 0 HLS", "the server counts the viewer")
        assert page.console() == []

        page.open()
        until(lambda: service.show("whep")["viewers"]["whep"] == 1, "the first stream is shown by itself")
        page.open("none")
        until(lambda: service.show("whep")["viewers"]["whep"] == 0, "leaving ends the session")
        until(lambda: page.text("#gone-id") == "none", "the page says that there is no such stream")


def test_the_plain_picture_beside_the_upscaled_one(service: Service, page: Page) -> None:
    with service.stream("compare", SOURCE):
        service.wait_for("compare", "running")
        page.open("compare")
        page.plays(SIZE)
        page.find("#compare").click()

        def sizes() -> list[int]:
            script = "return [...document.querySelectorAll('video')].map(video => video.videoWidth)"
            return page.run(script)

        until(lambda: sizes() == [160, 320], "both pictures are there")
        until(page.find("#compared").is_displayed, "they are drawn together")
        page.plays(SIZE)
        page.find("#split-at").send_keys("\ue011")  # Home
        assert (
            page.run(
                "return getComputedStyle(arguments[0]).getPropertyValue('--split')", page.find("#picture")
            )
            == "0"
        )
        assert page.picture().std() > 20, "the upscaled picture shows something"
        page.find("#split-at").send_keys("\ue010")  # End
        assert page.picture().std() > 20, "so does the plain one"
        page.find("#compare").click()
        until(lambda: not page.find("#compared").is_displayed(), "the plain picture is gone")
        page.plays(SIZE)
        assert page.console() == []


@contextmanager
def without(page: Page, script: str) -> Iterator[None]:
    """A browser that lacks what the script takes away."""
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        yield
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_browser_without_h264_is_sent_vp8(service: Service, page: Page) -> None:
    less = """
        const { addTransceiver, setRemoteDescription } = RTCPeerConnection.prototype;
        RTCPeerConnection.prototype.addTransceiver = function (kind, init) {
            const made = addTransceiver.call(this, kind, init);
            const codecs = RTCRtpReceiver.getCapabilities(kind).codecs;
            made.setCodecPreferences(codecs.filter((codec) => codec.mimeType !== "video/H264"));
            return made;
        };
        RTCPeerConnection.prototype.setRemoteDescription = function (answer) {
            window.answered = answer.sdp;
            return setRemoteDescription.call(this, answer);
        };"""
    with without(page, less), service.stream("vp8", SOURCE):
        service.wait_for("vp8", "running")
        page.open("vp8")
        page.plays(SIZE, more=20)
        assert "VP8/90000" in page.run("return window.answered")
        assert page.picture().std() > 20
        assert page.text("#player-note") == ""
        page.find("#compare").click()
        until(page.find("#compared").is_displayed, "two renditions are drawn together, in VP8 as well")
        page.plays(SIZE)
        assert page.console() == []


def test_hls_plays_by_the_browser_itself(service: Service, page: Page) -> None:
    less = "delete window.MediaSource; delete window.ManagedMediaSource; delete window.WebKitMediaSource"
    with without(page, less), service.stream("hls", SOURCE):
        service.wait_for("hls", "running")
        page.open("hls")
        page.plays(SIZE)
        page.find("[value=hls] + span").click()
        until(lambda: page.fact("player", "over") == "HLS, native", "it plays over HLS")
        page.plays(SIZE)
        assert page.picture().std() > 20
        until(lambda: service.show("hls")["viewers"] == {"whep": 0, "hls": 1}, "the server counts the player")


def test_hls_js_plays_close_to_the_source_where_there_is_no_webrtc(service: Service, page: Page) -> None:
    if not (ROOT / "server/gateway/web/vendor/hls.mjs").exists():
        missing_peer("hls.js", "make web")
    port = free_port()
    source = NumberedSource(partial(Udp, "127.0.0.1", port), width=160, height=96, fps=25)
    less = "HTMLMediaElement.prototype.canPlayType = () => ''; delete window.RTCPeerConnection"
    with without(page, less), closing(source.way), service.stream("hlsjs", f"udp://127.0.0.1:{port}"), source:
        service.wait_for("hlsjs", "running")
        page.open("hlsjs")
        page.plays("320 × 192", more=1)
        assert page.fact("player", "over") == "HLS, hls.js"
        assert page.text("#player-note") == "Playing HLS instead of WebRTC: this browser has no WebRTC."

        def behind_s() -> float | None:
            shown_s = time.monotonic()
            number = read(page.luma("#upscaled"))
            return shown_s - source.sent_s[number] if number in source.sent_s else None

        until(lambda: (behind := behind_s()) is not None and behind <= 2.0, "it is 2 s behind at most")
        print(f"\nhls.js is {behind_s() or 0:.2f} s behind the source, of a stream that has just begun")
        watched = [one["name"] for one in service.show("hlsjs")["renditions"] if one["watched"]]
        assert watched == ["upscaled"], "the other variant is not even begun"

        def agree() -> bool:
            said, behind = page.fact("player", "behind"), behind_s()
            return behind is not None and abs(float(said.removesuffix(" s")) - behind) < 0.3

        until(agree, "the page says so")


def test_a_killed_worker_is_replaced_until_it_is_once_too_often(service: Service, page: Page) -> None:
    with service.stream("killed", SOURCE):
        service.wait_for("killed", "running")
        page.open("killed")
        page.plays(SIZE)
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.show("killed")["worker"]["restarts"] == 1, "the worker is replaced")
        page.plays(SIZE, more=20)
        posts = [url for url in page.requests("whep/") if url.endswith("/killed")]
        assert len(posts) == 1, "the viewer never had to connect again"
        assert page.fact("server", "restarts") == "1"
        assert not page.find("#release").is_displayed()

        for restarts in (2, 3):
            os.kill(until(lambda: service.show("killed")["worker"]["pid"], "its process id"), signal.SIGKILL)
            if restarts < 3:
                until(
                    lambda n=restarts: service.show("killed")["worker"]["restarts"] == n,
                    "it is replaced again",
                )
        until(
            lambda: page.text("#stream-state") == "Quarantined", "a stream that kills its workers is stopped"
        )
        assert "ended 3 workers within 60 s" in page.text("#overlay-why")
        page.find("#release").click()
        service.wait_for("killed", "running")
        page.plays(SIZE)
        assert not page.find("#release").is_displayed()


def test_a_stream_is_added_and_deleted_on_the_page(service: Service, page: Page) -> None:
    page.open()
    until(lambda: page.find("#empty").is_displayed(), "an empty service says how to add a stream")
    page.find("#add-first").click()
    page.find("#add-source").send_keys("gopher://example/")
    page.find("#add-id").send_keys("mine")
    page.find("#add-form [type=submit]").click()
    until(lambda: "'gopher' must be one of" in page.text("#add-error"), "the server's words")
    page.find("#add-source").clear()
    page.find("#add-source").send_keys("/tmp/<img src=x onerror=hacked=1>\ue007")  # Enter
    until(lambda: page.text("#stream-name") == "mine", "the new stream is shown")
    until(lambda: page.text("#overlay-title") == "This stream failed", "and its failure")
    assert "/tmp/<img src=x onerror=hacked=1>" in page.text("#overlay-why")
    assert page.run("return window.hacked") is None
    page.find("#delete").click()
    page.find("#delete-form [type=submit]").click()
    until(lambda: page.find("#empty").is_displayed(), "it is gone")
    assert service.http.get("/api/streams").json() == []


def test_a_lost_source_is_said_on_the_page(service: Service, page: Page) -> None:
    with service.stream("lost", "rtsp://127.0.0.1:9/nothing"):
        service.wait_for("lost", "reconnecting")
        page.open("lost")
        until(lambda: "Connection refused" in page.text("#overlay-why"), "the reason is shown")
        assert page.text("#stream-state") == "Reconnecting"
        assert page.text("#sr-word") == "Off"


def test_a_phone_needs_no_sideways_scrolling(service: Service, page: Page) -> None:
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        with service.stream("a-camera-with-a-rather-long-name", SOURCE):
            page.open("a-camera-with-a-rather-long-name")
            page.plays(SIZE, more=1)
            assert page.run("return document.documentElement.scrollWidth") == 320
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
