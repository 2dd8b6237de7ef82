"""GStreamer plays the HLS output, each variant: every frame in its order, and the sound."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.worker.ingest.synthetic import read_frame_number
from tests.peers.service import Service, until

FRAMES = 36


@pytest.mark.parametrize("name", ["upscaled", "source"])
def test_gstreamer_plays_every_variant(
    service: Service,
    program: Callable[[str, str], str],
    spawn: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
    name: str,
) -> None:
    gst = program("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-bad gstreamer1.0-libav")
    scale, picture = {"upscaled": 2, "source": 1}[name], tmp_path / "picture"
    with service.stream("gst", "synthetic:?size=160x90&fps=12", renditions=["upscaled", "source"]):
        service.wait_for("gst", "running")
        caps = f"video/x-raw,format=I420,width={scale * 160},height={scale * 90}"
        pipeline = f"""uridecodebin uri={service.url}hls/gst/{name}.m3u8 ! queue ! {caps}
            ! filesink buffer-mode=unbuffered location={picture}"""
        play(spawn(gst, *pipeline.split()), picture, scale)


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
        caps = "video/x-raw,format=I420,width=320,height=180"  # anything else does not link
        write = "filesink buffer-mode=unbuffered location"
        pipeline = f"""uridecodebin uri={service.url}hls/gst/index.m3u8 name=player
            player. ! queue ! {caps} ! {write}={picture}
            player. ! queue ! audioconvert ! audio/x-raw,format=S16LE ! {write}={sound}"""
        play(spawn(gst, *pipeline.split()), picture, 2)
    assert np.fromfile(sound, np.int16).std() > 100, "the tone is heard"


def play(player: "subprocess.Popen[bytes]", picture: Path, scale: int) -> None:
    """Until it has shown `FRAMES`, each with its number, in their order."""
    width, height = 160 * scale, 90 * scale
    frame_bytes = width * height * 3 // 2

    def played() -> bool:
        assert player.poll() is None, "the player gave up"
        return picture.exists() and picture.stat().st_size >= FRAMES * frame_bytes

    until(played, f"{FRAMES} frames are played")
    player.terminate()
    player.wait()
    frames = np.fromfile(picture, np.uint8, FRAMES * frame_bytes).reshape(FRAMES, -1)
    lumas = (frame[: width * height].reshape(height, width) for frame in frames)
    numbers = [read_frame_number(luma, scale=scale) for luma in lumas]
    assert None not in numbers, "every frame's number can be read in its picture"
    assert numbers == sorted(set(numbers))
