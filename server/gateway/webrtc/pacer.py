"""Pauses of many senders, by few timers: all viewers of a stream wait between the same packets."""

import asyncio
import math
from collections.abc import Callable

_STEP_S = 0.001


class Pacer:
    """A call that is due within a step of another one shares its timer."""

    def __init__(self) -> None:
        self._due: dict[int, list[Callable[[], None]]] = {}

    def after(self, pause_s: float, call: Callable[[], None]) -> None:
        """Calls it in the event loop, after that time or up to a step later. It must not raise."""
        loop = asyncio.get_running_loop()
        step = math.ceil((loop.time() + pause_s) / _STEP_S)
        calls = self._due.get(step)
        if calls is None:
            calls = self._due[step] = []
            loop.call_at(step * _STEP_S, self._run, step)
        calls.append(call)

    def _run(self, step: int) -> None:
        for call in self._due.pop(step):
            call()
