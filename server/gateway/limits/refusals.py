"""Counts what is refused for a limit's sake, and logs it at a limited rate."""

import time
from collections.abc import Callable
from typing import Literal

from server.wire.logs import get_logger

log = get_logger(__name__)

Refusal = Literal[
    "connections",
    "slow_client",
    "lines",
    "headers",
    "hls_rate",
    "failed_logins",
    "host",
    "failed_keys",
    "bad_publisher",
    "feedback",
]
LOG_EVERY_S = 10.0


class Refusals:
    """`count` is told of each; the log of the first of each kind, and of how many came since."""

    def __init__(self, count: Callable[[Refusal], None]) -> None:
        self._count = count
        self._unlogged: dict[Refusal, int] = {}
        self._logged_s: dict[Refusal, float] = {}

    def add(self, reason: Refusal, who: str) -> None:
        """`who` is an address."""
        self._count(reason)
        self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
        now_s = time.monotonic()
        if now_s - self._logged_s.get(reason, -LOG_EVERY_S) >= LOG_EVERY_S:
            log.warning("refused", reason=reason, count=self._unlogged.pop(reason), client=who)
            self._logged_s[reason] = now_s
