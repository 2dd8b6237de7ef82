"""Keyframe requests of many viewers, thinned out for the one encoder."""

import asyncio
from collections.abc import Callable

MIN_INTERVAL_S = 0.5


class KeyframeRequests:
    """Passes a request on at once where the last was long enough ago, else when that time has come."""

    def __init__(self, request: Callable[[], None]) -> None:
        self._request = request
        self._last_s = float("-inf")
        self._pending: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        if self._pending is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._last_s + MIN_INTERVAL_S - loop.time()
        if wait_s <= 0:
            self._pass_on()
        else:
            self._pending = loop.call_later(wait_s, self._pass_on)

    def satisfied(self) -> None:
        """A keyframe has come, whoever asked for it: who waits has been served."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _pass_on(self) -> None:
        self._pending = None
        self._last_s = asyncio.get_running_loop().time()
        self._request()
