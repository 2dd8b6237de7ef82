"""Keeps one worker running: starts it, watches its heartbeat, replaces it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from server.messages import Failed, Heartbeat, Message, ProtocolError, WorkerJob
from server.placement import Placement, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a worker may be silent, and how soon it is replaced."""

    start_s: float = 60.0  # to the first heartbeat: loading an engine may take long on a busy machine
    heartbeat_s: float = 5.0  # ten missed ones
    steady_s: float = 10.0  # a worker that lived this long is replaced at once
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 30.0


class Supervised(Protocol):
    """Who hears of the worker."""

    def on_start(self) -> None: ...

    def on_message(self, message: Message) -> None: ...

    def on_death(self, reason: str, retry_in_s: float) -> None: ...


class Supervisor:
    """Runs one job until it has failed for good or is cancelled."""

    def __init__(
        self,
        placement: Placement,
        job: WorkerJob,
        supervised: Supervised,
        patience: Patience = Patience(),
    ) -> None:
        self._placement = placement
        self._job = job
        self._supervised = supervised
        self._patience = patience
        self._worker: Worker | None = None

    def send(self, message: Message) -> None:
        """To the running worker; nothing between two of them, as each starts from scratch."""
        if self._worker is not None:
            self._worker.send(message)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        quick_deaths = 0
        while True:
            started_s = loop.time()
            reason = await self._one_worker()
            if reason is None:
                return
            quick_deaths = 0 if loop.time() - started_s > self._patience.steady_s else quick_deaths + 1
            retry_in_s = self._backoff_s(quick_deaths)
            log.warning("stream %s: %s; next worker in %.1f s", self._job.stream, reason, retry_in_s)
            self._supervised.on_death(reason, retry_in_s)
            await asyncio.sleep(retry_in_s)

    def _backoff_s(self, quick_deaths: int) -> float:
        """The first death is answered at once, as viewers wait; only repeated ones are a pattern."""
        if quick_deaths < 2:
            return 0.0
        # The exponent is bounded: years of retrying would overflow a float.
        backoff_s = self._patience.first_backoff_s * 2.0 ** min(quick_deaths - 2, 16)
        return min(backoff_s, self._patience.longest_backoff_s)

    async def _one_worker(self) -> str | None:
        """Why a worker ended; None where the stream has failed for good."""
        try:
            worker = await self._placement.start(self._job)
        except OSError as exc:
            return f"no worker could be started: {exc}"
        self._worker = worker
        self._supervised.on_start()
        reason: str | None
        try:
            reason = await self._listen(worker)
        finally:
            self._worker = None
            ending = await worker.stop()
        return None if reason is None else reason or ending

    async def _listen(self, worker: Worker) -> str | None:
        """Why the worker must go, "" where it went by itself; None where the stream has failed for good."""
        loop = asyncio.get_running_loop()
        limit_s = self._patience.start_s
        try:
            async with asyncio.timeout(limit_s) as watchdog:
                async for message in worker.messages():
                    if isinstance(message, Heartbeat):
                        limit_s = self._patience.heartbeat_s
                        watchdog.reschedule(loop.time() + limit_s)
                    self._supervised.on_message(message)
                    if isinstance(message, Failed):
                        return None
        except TimeoutError:
            return f"the worker gave no sign of life for {limit_s:g} s"
        except ProtocolError as exc:
            return f"the worker spoke nonsense: {exc}"
        return ""
