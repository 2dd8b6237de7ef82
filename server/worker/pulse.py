"""Signs of life: a thread that does nothing else, so that no slow stage holds them back."""

import threading
from collections.abc import Callable, Mapping

from server.wire.messages import Alive, Message

_PERIOD_S = 0.1
# The largest network takes a second for a picture of 1080 lines on two cores; on busy ones a few.
HANG_S = 5.0


class Pulse:
    """Says ten times a second that the process lives, and notices a thread that makes no step for HANG_S.

    Silence is counted in its own turns: a process that was stopped as a whole finds no thread that hangs.
    """

    def __init__(
        self,
        send: Callable[[Message], bool],
        *,
        steps: Callable[[], Mapping[str, int]],
        held_up: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        """`steps` of each working thread so far; none is expected to make any while `held_up`."""
        self.hung = ""  # the name of a thread that hangs
        self._send = send
        self._steps = steps
        self._held_up = held_up
        self._stop = stop
        self._seen: Mapping[str, int] = {}
        self._silent: dict[str, int] = {}  # turns without a step

    def start(self) -> None:
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._send(Alive())
            self.turn()
            self._stop.wait(_PERIOD_S)

    def turn(self) -> None:
        """Looks at the threads' steps once."""
        before, self._seen = self._seen, self._steps()
        if self._held_up():
            self._silent.clear()
            return
        for name, steps in self._seen.items():
            self._silent[name] = self._silent.get(name, 0) + 1 if steps == before.get(name) else 0
            if self._silent[name] * _PERIOD_S >= HANG_S:
                self.hung = name
