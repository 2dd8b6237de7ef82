"""GStreamer plays the HLS output: every frame in its order, and the sound."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from server.worker.ingest.synthetic import read_frame_number
from tests.peers.service import Service, until

WIDTH, HEIGHT = 320, 180
FRAMES = 36


def test_gstreamer_plays_hls(
    service: Service,
    program: Callable[[str, str], str],
    spawn: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
) -> None:
    gst = program("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-bad gstreamer1.0-libav")
    picture, sound = tmp_path / "picture", tmp_path / "sound"
    with service.stream("gst", "synthetic:?size=160x90&fps=12"):
        service.wait_for("gst", "running")
        caps = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT}"  # anything else does not link
        write = "filesink buffer-mode=unbuffered location"
        pipeline = f"""uridecodebin uri={service.url}hls/gst/index.m3u8 name=player
            player. ! queue ! {caps} ! {write}={picture}
            player. ! queue ! audioconvert ! audio/x-raw,format=S16LE ! {write}={sound}"""
        player = spawn(gst, *pipeline.split())

        def played() -> bool:
            assert player.poll() is None, "the player gave up"
            return picture.exists() and picture.stat().st_size >= FRAMES * WIDTH * HEIGHT * 3 // 2

        until(played, f"{FRAMES} frames are played")
        player.terminate()
        player.wait()

    frames = np.fromfile(picture, np.uint8, FRAMES * WIDTH * HEIGHT * 3 // 2).reshape(FRAMES, -1)
    numbers = [read_frame_number(frame[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH), scale=2) for frame in frames]
    assert None not in numbers, "every frame's number can be read in its picture"
    assert numbers == sorted(set(numbers))
    assert np.fromfile(sound, np.int16).std() > 100, "the tone is heard"
