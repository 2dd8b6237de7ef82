"""How far a long job is, for whoever waits: on a terminal a line that moves, elsewhere one now and then."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOVES_S, _SAYS_S = 0.2, 10.0


class Progress:
    """Counts one kind of thing: "frames", "images"."""

    def __init__(self, things: str, what: str = "") -> None:
        self._things = things
        self._what = f"{what}: " if what else ""
        self._tty = sys.stderr.isatty()
        self._every_s = _MOVES_S if self._tty else _SAYS_S
        self._began_s = time.monotonic()
        self._next_s = 0.0 if self._tty else self._every_s

    def show(self, done: int, of: int, seconds: float | None = None) -> None:
        """So many of so many (0: nobody knows) are done, after so many seconds or since it was made."""
        seconds = time.monotonic() - self._began_s if seconds is None else seconds
        if seconds < self._next_s and done != of:
            return
        self._next_s = seconds + self._every_s
        speed = done / seconds if seconds else 0.0
        text = f"{self._what}{done} {self._things}, {speed:.1f} a second"
        if of and speed:
            part, left = min(done / of, 1.0), _clock(max(of - done, 0) / speed)
            text = f"{'█' * round(30 * part):░<30} {part:4.0%}  {text}, {left} left"
        self._say(text)

    def end(self) -> None:
        if self._tty:
            print(file=sys.stderr)

    def _say(self, text: str) -> None:
        if self._tty:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr)


@contextmanager
def working(what: str, about_s: float = 0.0) -> Iterator[None]:
    """Shows on a terminal how long this has taken, and of about how many seconds (0: nobody knows)."""
    if not sys.stderr.isatty():
        yield
        return
    began_s, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(_MOVES_S):
            took_s = time.monotonic() - began_s
            left = f", {_clock(about_s - took_s)} left" if about_s > took_s else ""
            print(f"\r\x1b[K{what}: {_clock(took_s)}{left}", end="", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
