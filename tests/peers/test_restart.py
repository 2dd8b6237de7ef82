"""The service is restarted or killed under Chromium: the page plays again by itself, soon."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.browser import Page, chromium
from tests.peers.service import running, until
from tests.ports import free_port

STREAM = '[[streams]]\nid = "test"\nsource = "synthetic:?size=160x90&fps=12"\nupscale_when = "watched"\n'
LIMIT_S = 4.0


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def page(port: int, program: Callable[[str, str], str]) -> Iterator[Page]:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, f"http://127.0.0.1:{port}/") as page:
        yield page


def pictures(page: Page) -> int:
    return page.run("return document.querySelector('#upscaled').getVideoPlaybackQuality().totalVideoFrames")


def plays(page: Page) -> None:
    """The pictures move."""
    seen = [pictures(page)]

    def moved() -> bool:
        seen.append(pictures(page))
        return seen[-1] > seen[-2]

    until(moved, "the picture moves")


def end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait(30)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("transport", ["whep", "hls"])
def test_the_page_plays_again(
    tmp_path: Path, page: Page, port: int, transport: str, how: signal.Signals
) -> None:
    with running(tmp_path, STREAM, port=port) as service:
        page.open("test")
        page.plays("320 × 180", more=1)
        if transport == "hls":
            page.find("[value=hls] + span").click()
            until(lambda: page.fact("player", "over").startswith("HLS"), "it plays over HLS")
        plays(page)
        end(service.process, how)
    until(lambda: page.text("#stream-state") == "No answer", "the page notices")
    with running(tmp_path, STREAM, port=port) as service:
        ready_s = time.monotonic()
        plays(page)
        took_s = time.monotonic() - ready_s
        print(f"{transport}, {how.name}: plays again {took_s:.1f} s after the service is ready")
        assert page.fact("player", "over").startswith("WebRTC" if transport == "whep" else "HLS")
    assert took_s < LIMIT_S, f"{took_s:.1f} s"
