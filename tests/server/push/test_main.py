"""The process of a push, fed by hand."""

import io
import socket
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
from av import VideoFrame


def few_small_fragments() -> bytes:
    file = io.BytesIO()
    options = {"movflags": "empty_moov+default_base_moof+frag_every_frame"}
    with av.open(file, "w", format="mp4", options=options) as made:
        stream = made.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            frame = VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return file.getvalue()


def test_a_little_is_sent_on_though_more_may_come():
    media = few_small_fragments()
    assert len(media) < 32768, "less than what a buffered reader waits for"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(30)
        address = f"udp://127.0.0.1:{target.getsockname()[1]}\n"
        command = [sys.executable, "-m", "server.push.main"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            try:
                process.stdin.write(address.encode() + media)
                process.stdin.flush()
                assert target.recv(2048)[:1] == b"\x47", "MPEG-TS, while stdin is open"
            finally:
                process.kill()
