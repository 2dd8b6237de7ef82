"""Signs of life: a thread that does nothing else, so that no slow stage holds them back."""

import os
import threading
from collections.abc import Callable, Mapping

from server.wire.messages import Alive, Message
from server.wire.threads import at_work

_PERIOD_S = 0.1
# Without a step while the process is at rest. While it is at work, a large picture may take some seconds on a
# machine that is busy with other things.
HANG_S = 5.0
_AT_WORK_SHARE = 1 / 6
_LOOK_AFTER_S = 1.0


class Pulse:
    """Says ten times a second that the process lives, and notices a thread that makes no step for HANG_S, or
    six times as long while the process is at work.

    Silence is counted in its own turns: a process that was stopped as a whole finds no thread that hangs.
    """

    def __init__(
        self,
        send: Callable[[Message], bool],
        *,
        steps: Callable[[], Mapping[str, int]],
        held_up: Callable[[], bool],
        stop: threading.Event,
        at_work: Callable[[], bool] = lambda: at_work(os.getpid(), besides=threading.get_native_id()),
    ) -> None:
        """`steps` of each working thread so far; none is expected to make any while `held_up`. `at_work`:
        some thread besides the one that asks."""
        self.hung = ""  # the name of a thread that hangs
        self._send = send
        self._steps = steps
        self._held_up = held_up
        self._stop = stop
        self._at_work = at_work
        self._seen: Mapping[str, int] = {}
        self._silent_s: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Returns once it has ended, which it does when it is stopped."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._send(Alive())
            self.turn()
            self._stop.wait(_PERIOD_S)

    def turn(self) -> None:
        """Looks at the threads' steps once."""
        before, self._seen = self._seen, self._steps()
        if self._held_up():
            self._silent_s.clear()
            return
        turn_s = _PERIOD_S
        if max(self._silent_s.values(), default=0.0) > _LOOK_AFTER_S and self._at_work():
            turn_s *= _AT_WORK_SHARE
        for name, steps in self._seen.items():
            silent = steps == before.get(name)
            self._silent_s[name] = self._silent_s.get(name, 0.0) + turn_s if silent else 0.0
            if self._silent_s[name] > HANG_S:
                self.hung = name
