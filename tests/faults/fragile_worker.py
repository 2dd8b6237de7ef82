"""A worker with a flaw, which the file of its process id in the folder LIVESR_TEST_FLAWS names."""

import ctypes
import os
import threading
from pathlib import Path

from server.worker import main as worker
from server.worker.encode.h264 import H264Encoder
from server.worker.process.decode import PictureDecoder

FOLDER = "LIVESR_TEST_FLAWS"


def flaw() -> str:
    file = Path(os.environ[FOLDER]) / str(os.getpid())
    return file.read_text() if file.exists() else ""


def crash_or_decode(decoder, packet, arrival_ns, decode=PictureDecoder.decode):
    if flaw() == "crash":
        ctypes.string_at(0)
    if flaw() == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(32 << 20))
    return decode(decoder, packet, arrival_ns)


def hang_or_encode(encoder, frame, pts, encode=H264Encoder.encode):
    if flaw() == "hang":
        threading.Event().wait()
    return encode(encoder, frame, pts)


if __name__ == "__main__":
    PictureDecoder.decode = crash_or_decode
    H264Encoder.encode = hang_or_encode
    worker.main()
