"""GStreamer plays the HLS output."""

import re
import subprocess
from collections.abc import Callable

from tests.peers.service import Service


def test_gstreamer_plays_hls(service: Service, program: Callable[[str, str], str]) -> None:
    gst = program("gst-launch-1.0", "gstreamer1.0-tools gstreamer1.0-plugins-bad gstreamer1.0-libav")
    with service.stream("gst", "synthetic:?size=160x90&fps=12"):
        service.wait_for("gst", "running")
        video = "d. ! queue ! videoconvert ! video/x-raw ! identity eos-after=30 ! fakesink name=video sync=false"
        audio = "d. ! queue ! audioconvert ! fakesink name=audio sync=false"
        pipeline = f"uridecodebin uri={service.url}hls/gst/index.m3u8 name=d {video} {audio}"
        done = subprocess.run([gst, "-v", *pipeline.split()], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        caps = re.search(r"fakesink:video.*caps = (video/x-raw.*)", done.stdout.replace("GstFakeSink", "fakesink"))
        assert caps, done.stdout
        assert "width=(int)320, height=(int)180" in caps.group(1)
        assert re.search(r":audio.*audio/x-raw", done.stdout), "there is sound"
        assert "Got EOS" in done.stdout + done.stderr
