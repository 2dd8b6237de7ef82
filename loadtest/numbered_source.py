"""A live source of the load test's own: each picture carries its number, and when it was sent is known."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol

import av
import numpy as np
from av.container import OutputContainer
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


class Way(Protocol):
    """How packets get to the service. `open` raises av.FFmpegError where nobody is there to take them."""

    def open(self) -> OutputContainer: ...

    def send(self, container: OutputContainer, packet: "av.Packet[av.VideoStream]", number: int) -> None:
        """Tells what it was made with that the frame's last byte has been sent."""
        ...

    def close(self) -> None: ...


# Hears which frames' last bytes have just been sent.
OnSent = Callable[[list[int]], None]


class NumberedSource:
    """Sends pictures in real time, by one way, which is the caller's to close. A context manager; owns its
    thread."""

    def __init__(self, make_way: Callable[[OnSent], Way], *, width: int, height: int, fps: int) -> None:
        self.error = ""  # why it could not send, when that was so last
        self.sent_s: dict[int, float] = {}  # number → monotonic time at which its last byte was sent
        self.way = make_way(self._on_sent)
        self._size = width, height
        self._fps = fps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="numbered-source")

    def __enter__(self) -> "NumberedSource":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _on_sent(self, numbers: list[int]) -> None:
        now_s = time.monotonic()
        for number in numbers:
            self.sent_s.setdefault(number % (1 << BITS), now_s)

    def _run(self) -> None:
        numbers = itertools.count()
        while not self._stop.is_set():
            try:
                self._send(numbers)
            except (av.FFmpegError, OSError) as exc:  # the service doesn't wait for it yet, or not any more
                self.error = str(exc)
                self._stop.wait(0.3)

    def _send(self, numbers: "itertools.count[int]") -> None:
        width, height = self._size
        chroma = np.full((height // 2, width), 128, np.uint8)
        container = self.way.open()
        try:
            stream = container.add_stream("libx264", rate=self._fps, options=_X264 | {"g": str(self._fps)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            begin_s, first = time.monotonic(), None
            for number in numbers:
                first = number if first is None else first
                due_s = begin_s + (number - first) / self._fps
                if self._stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                planes = np.concatenate([draw(number % (1 << BITS), width, height), chroma])
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts = number - first
                for packet in stream.encode(frame):
                    self.way.send(container, packet, number)
        finally:
            container.close()
