"""Independent players before a service that lets in by token: a signed path plays, the plain one doesn't."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, missing_peer
from tests.peers.browser import chromium
from tests.peers.service import Service, running, until

SOURCE = "synthetic:?size=160x90&fps=12"
# hls.js as another page would use it: what it was told instead of the playlist, or that it plays.
HLS_JS = """
    const [url, done] = arguments;
    import("/web/vendor/hls.mjs").then(({ default: Hls }) => {
        const video = document.createElement("video");
        video.muted = true;
        const player = new Hls();
        player.on(Hls.Events.ERROR, (_, { fatal, response }) => fatal && done(response?.code ?? "failed"));
        video.addEventListener("playing", () => { done("plays"); player.destroy(); });
        player.loadSource(url);
        player.attachMedia(video);
        video.play();
    });
"""
ADMIN = "the-token-of-this-test"
AUTH = f"""
[[auth.tokens]]
name = "admin"
sha256 = "{hashlib.sha256(ADMIN.encode()).hexdigest()}"
scopes = ["admin"]
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("guarded"), AUTH, ADMIN) as service, service.stream("cam", SOURCE):
        service.wait_for("cam", "running")
        yield service


def signed_url(service: Service) -> str:
    answer = service.http.post("/api/streams/cam/hls-path")
    assert answer.status_code == 200, answer.text
    return service.url.rstrip("/") + answer.json()["url"]


def test_ffmpeg_plays_by_a_signed_path_only(guarded: Service, ffmpeg: str) -> None:
    def play(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [ffmpeg, "-v", "error", *words, "-t", "2", "-map", "0:v:0", "-f", "framecrc", "-"]
        return subprocess.run(command, capture_output=True, text=True, timeout=90)

    played = play("-i", signed_url(guarded))
    assert played.returncode == 0, played.stderr
    assert "320x180" in played.stdout

    plain = f"{guarded.url}hls/cam/index.m3u8"
    refused = play("-i", plain)
    assert refused.returncode != 0
    assert "401" in refused.stderr
    by_header = play("-headers", f"Authorization: Bearer {ADMIN}\r\n", "-i", plain)
    assert by_header.returncode == 0, by_header.stderr

    forged = play("-i", signed_url(guarded).replace("/cam/1", "/cam/2"))
    assert forged.returncode != 0
    assert "403" in forged.stderr


def test_gstreamer_plays_by_a_signed_path_only(
    guarded: Service,
    program: Callable[[str, str], str],
    spawn: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
) -> None:
    gst = program("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-bad gstreamer1.0-libav")
    picture = tmp_path / "picture"

    def play(url: str) -> "subprocess.Popen[bytes]":
        pipeline = f"""uridecodebin uri={url} name=player
            player. ! queue ! video/x-raw ! filesink buffer-mode=unbuffered location={picture}
            player. ! queue ! audio/x-raw ! fakesink"""
        return spawn(gst, *pipeline.split())

    refused = play(f"{guarded.url}hls/cam/index.m3u8")
    assert refused.wait(60) != 0
    assert picture.stat().st_size == 0
    play(signed_url(guarded))
    until(lambda: picture.stat().st_size >= 24 * 320 * 180 * 3 // 2, "two seconds are played")


def test_chromium_and_hls_js_play_by_a_signed_path_only(
    guarded: Service, program: Callable[[str, str], str]
) -> None:
    if not (ROOT / "server/gateway/web/vendor/hls.mjs").exists():
        missing_peer("hls.js", "make web")
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with chromium(executable, driver, guarded.url) as page:
        less = "HTMLMediaElement.prototype.canPlayType = () => ''; delete window.RTCPeerConnection"
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": less})
        page.open()
        assert page.driver.execute_async_script(HLS_JS, "/hls/cam/index.m3u8") == 401
        path = guarded.http.post("/api/streams/cam/hls-path").json()["url"]
        assert page.driver.execute_async_script(HLS_JS, path.replace("/cam/1", "/cam/2")) == 403
        assert page.driver.execute_async_script(HLS_JS, path) == "plays"

        page.open(f"token={ADMIN}")
        page.plays("320 × 180")
        assert page.fact("player", "over") == "HLS, hls.js"
        asked = page.requests("hls/")
        assert asked
        assert not [url for url in asked if url.startswith(f"{guarded.url}hls/cam/index.m3u8")]
        assert ADMIN not in "".join([*asked, page.driver.current_url])


def test_the_log_names_no_token(guarded: Service) -> None:
    for token in ("wrong-and-secret", ADMIN):
        httpx.get(f"{guarded.url}api/streams", headers={"Authorization": f"Bearer {token}"})
    until(lambda: "running" in guarded.log(), "the log is written")
    assert "wrong-and-secret" not in guarded.log()
    assert ADMIN not in guarded.log()
