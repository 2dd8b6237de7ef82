"""Programs that publish by WHIP: their pictures are upscaled; they go and come back."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing_peer
from tests.peers.browser import Page, chromium
from tests.peers.service import Service, until
from tests.peers.test_aiortc import loopback, watch  # noqa: F401
from tests.peers.test_publishers import Spawn

SCRIPT = (Path(__file__).parent / "whip_page.js").read_text()
END = "fetch(resource, { method: 'DELETE' }).then((answer) => arguments[0](answer.status))"


@pytest.fixture(scope="module")
def browser(service: Service, program: Callable[[str, str], str]) -> Iterator[Page]:
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, service.url) as page:
        page.driver.set_script_timeout(60)
        yield page


def camera(page: Page, url: str, codec: str = "", size: tuple[int, int] = (160, 120)) -> Any:
    """A new page publishes its camera there; what it was answered."""
    page.open("none")
    return page.driver.execute_async_script(SCRIPT, url, codec, *size)


@contextmanager
def waiting(service: Service, name: str) -> Iterator[str]:
    """A stream that waits, and where it is published to."""
    with service.stream(name, "whip:", source_timeout_s=5):
        yield f"{service.url}whip/{name}"


@pytest.mark.parametrize("codec", ["VP8", "H264", "VP9", "AV1"])
async def test_a_browsers_camera_is_upscaled(service: Service, browser: Page, codec: str) -> None:
    with waiting(service, f"camera-{codec}") as url:
        said = await asyncio.to_thread(camera, browser, url, codec)
        if said == "no encoder":
            missing_peer(f"Chromium's encoder of {codec}", "a build of Chromium that has it")
        assert said == 201
        source = (await asyncio.to_thread(service.wait_for, f"camera-{codec}", "running"))["input"]
        assert (source["codec"], source["width"], source["height"]) == (codec.lower(), 160, 120)
        assert source["audio"]
        pictures = await watch(service, f"camera-{codec}", 5)
        assert {(picture.width, picture.height) for picture in pictures} == {(320, 240)}
        assert pictures[-1].to_ndarray(format="gray").std() > 10


def test_a_camera_goes_and_comes_back_and_a_worker_dies_beneath_it(service: Service, browser: Page) -> None:
    with waiting(service, "returns") as url:
        assert camera(browser, url) == 201
        service.wait_for("returns", "running")
        assert camera_of_another(service, "returns") == 409
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.show("returns")["worker"]["restarts"] == 1, "the worker is replaced")
        service.wait_for("returns", "running")
        service.wait_for_frames("returns")
        assert browser.run("return peer.connectionState") == "connected"

        assert browser.driver.execute_async_script(END) == 200
        assert "the publisher has gone" in service.wait_for("returns", "reconnecting")["reason"]
        assert camera(browser, url, size=(200, 120)) == 201
        until(lambda: service.show("returns")["input"]["width"] == 200, "another picture")
        service.wait_for("returns", "running")
        browser.open("none")  # without a word
        service.wait_for("returns", "reconnecting")


def camera_of_another(service: Service, name: str) -> int:
    offer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n"
    offer += "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=sendonly\r\n"
    offer += f"a=fingerprint:sha-256 {':'.join(['5A'] * 32)}\r\na=rtpmap:96 VP8/90000\r\na=rtcp-mux\r\n"
    headers = {"Content-Type": "application/sdp"}
    return service.http.post(f"/whip/{name}", content=offer, headers=headers).status_code


def test_ffmpeg_publishes(service: Service, ffmpeg: str, spawn: Spawn) -> None:
    with waiting(service, "ffmpeg") as url:
        command = [ffmpeg, "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=160x90:rate=15"]
        command += [
            "-f",
            "lavfi",
            "-i",
            "sine=sample_rate=48000",
            "-c:a",
            "libopus",
            "-ac",
            "2",
            "-ar",
            "48000",
        ]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
        publisher = spawn(*command, "-bf", "0", "-g", "15", "-f", "whip", url)
        source = service.wait_for("ffmpeg", "running")["input"]
        assert (source["codec"], source["width"], source["audio"]) == ("h264", 160, True)
        service.wait_for_frames("ffmpeg")
        assert publisher.poll() is None
        publisher.send_signal(signal.SIGINT)
        service.wait_for("ffmpeg", "reconnecting")
