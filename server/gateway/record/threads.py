"""Threads of those who ask for recordings: where `recording.remote` hangs they wait, and nobody else does."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 8  # the others wait


class RecordThreads:
    """Started as they are needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="recordings")

    async def run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **options))

    def close(self) -> None:
        """Nothing more begins; what hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
