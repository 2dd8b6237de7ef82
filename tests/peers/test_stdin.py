"""`ffmpeg … | livesr serve -`: what another program writes is upscaled."""

import subprocess
import sys
from pathlib import Path

import httpx

from tests.conftest import ROOT
from tests.peers.service import until
from tests.ports import free_port


def test_what_is_piped_in_is_upscaled(ffmpeg: str, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "livesr.toml"
    config.write_text(
        '[server]\nstate = ""\n[defaults]\nupscale_when = "always"\nengine_patience_s = 60.0\n'
        "[limits]\nusable_share = 0\n[workers]\nstandby = 0\n"
    )
    picture = ["-re", "-f", "lavfi", "-i", "testsrc2=size=160x90:rate=15", "-c:v", "libx264"]
    coder = ["-preset", "ultrafast", "-tune", "zerolatency", "-g", "15", "-pix_fmt", "yuv420p"]
    writer = subprocess.Popen(
        [ffmpeg, "-loglevel", "error", *picture, *coder, "-f", "mpegts", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    serve = [sys.executable, "-m", "server", "serve", "-", "--config", str(config), "--port", str(port)]
    service = subprocess.Popen(serve, cwd=ROOT, stdin=writer.stdout)
    assert writer.stdout is not None
    writer.stdout.close()

    def show() -> dict:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/api/streams/live").json()
        except httpx.ConnectError:
            return {}

    try:
        until(lambda: show().get("state") == "running", "it runs")
        assert (show()["input"]["width"], show()["output"]["width"]) == (160, 320)
        until(lambda: show()["frames"]["total"] > 30, "frames")
        writer.kill()
        until(lambda: "standard input has ended" in show()["reason"], "the end is seen")
    finally:
        for process in (writer, service):
            process.kill()
            process.wait()
