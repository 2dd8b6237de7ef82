"""GStreamer's webrtcbin as publisher and as player, at an address of this machine: its ICE, libnice, takes no
loopback."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import missing_peer
from tests.peers.service import Service, running, until

PYTHON, PROGRAM = "/usr/bin/python3", Path(__file__).with_name("gst_webrtc.py")
PACKAGES = "python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice gstreamer1.0-plugins-ugly"
KNOWN = """
import sys, gi
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst
Gst.init(None)
sys.exit(not all(map(Gst.ElementFactory.find, ("webrtcbin", "nicesrc", "x264enc", "avdec_h264"))))
"""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose media are at that address."""
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", KNOWN], capture_output=True).returncode:
        missing_peer("GStreamer's webrtcbin", f"apt-get install {PACKAGES}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = unsent.getsockname()[0]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIVESR_WEBRTC__HOST_ADDRESSES", f'["{address}"]')
        with running(tmp_path_factory.mktemp("service")) as service:
            yield service


def test_it_publishes_by_whip_and_plays_by_whep(reached: Service, spawn: Spawn, tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    with reached.stream("gst", "whip:"):
        spawn(PYTHON, PROGRAM, "whip", f"{reached.url}whip/gst")
        reached.wait_for("gst", "running")
        player = spawn(PYTHON, PROGRAM, "whep", f"{reached.url}whep/gst", picture)
        seen = reached.show("gst")
        frame_bytes = 320 * 180 * 3 // 2

        def played() -> bool:
            assert player.poll() is None, "the player gave up"
            return picture.exists() and picture.stat().st_size >= 24 * frame_bytes

        until(played, "two seconds are played")
    assert (seen["input"]["width"], seen["output"]["width"]) == (160, 320)
    pictures = np.fromfile(picture, np.uint8, 24 * frame_bytes).reshape(24, -1)
    lumas = pictures[:, : 320 * 180].astype(int)
    assert np.abs(np.diff(lumas, axis=0)).max(axis=1).min() > 30, "the ball moves in each picture"
