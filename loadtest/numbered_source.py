"""A live source of the load test's own: each picture carries its number, and when it was made is known."""

import itertools
import threading
import time

import av
import numpy as np
from numpy.typing import NDArray

BITS = 16
_DARK, _BRIGHT = 40, 210
_X264 = {"preset": "ultrafast", "tune": "zerolatency"}

Luma = NDArray[np.uint8]


def draw(number: int, width: int, height: int) -> Luma:
    """The number as 16 upright bars, most significant first; the lower half shows its complement."""
    bits = np.array([number >> (BITS - 1 - i) & 1 for i in range(BITS)], dtype=bool)
    columns = bits[np.arange(width) * BITS // width]
    upper = np.where(columns, _BRIGHT, _DARK).astype(np.uint8)
    lower = np.where(columns, _DARK, _BRIGHT).astype(np.uint8)
    return np.concatenate([np.tile(upper, (height // 2, 1)), np.tile(lower, (height - height // 2, 1))])


def read(luma: Luma) -> int | None:
    """The number in a picture of any size; None where it is damaged."""
    height, width = luma.shape
    bar = width // BITS
    centres = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)

    def bits(rows: Luma) -> NDArray[np.bool_]:
        means = np.array([rows[:, x - bar // 4 : x + bar // 4 + 1].mean() for x in centres])
        return means > (_DARK + _BRIGHT) / 2

    upper, lower = bits(luma[height // 8 : height * 3 // 8]), bits(luma[height * 5 // 8 : height * 7 // 8])
    if not np.array_equal(upper, ~lower):
        return None
    return int("".join("1" if bit else "0" for bit in upper), 2)


class NumberedSource:
    """Sends MPEG-TS over UDP in real time, whoever listens. A context manager; owns its thread."""

    def __init__(self, url: str, *, width: int, height: int, fps: int) -> None:
        self.made_s: dict[int, float] = {}  # number → monotonic time at which the picture was there
        self._url = url
        self._size = width, height
        self._fps = fps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="numbered-source")

    def __enter__(self) -> "NumberedSource":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        width, height = self._size
        chroma = np.full((height // 2, width), 128, np.uint8)
        begin_s = time.monotonic()
        with av.open(self._url, "w", format="mpegts", options={"flush_packets": "1"}) as output:
            stream = output.add_stream("libx264", rate=self._fps, options=_X264 | {"g": str(self._fps)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in itertools.count():
                if self._stop.wait(max(0.0, begin_s + number / self._fps - time.monotonic())):
                    return
                self.made_s[number % (1 << BITS)] = time.monotonic()
                planes = np.concatenate([draw(number, width, height), chroma])
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts = number
                output.mux(stream.encode(frame))
