"""Keeps one worker running: starts it, watches its heartbeat, replaces it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from server.gateway.placement import Placement, WorkerHandle
from server.wire.codec import ProtocolError
from server.wire.messages import Heartbeat, JobImpossible, Message, WorkerBroken, WorkerJob

TICKS = 10  # of the silence after which a worker is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a worker may be silent, and how soon it is replaced."""

    start_s: float = 60.0  # to the first heartbeat: loading an engine may take long on a busy machine
    heartbeat_s: float = 5.0  # ten missed ones
    steady_s: float = 10.0  # a worker that lived this long is replaced at once
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 30.0


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream has failed for good: no other worker would do better."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker must go or has gone; `reason` is "" where nobody says why."""

    reason: str


Ending = StreamEnded | WorkerEnded


class Supervised(Protocol):
    """Who hears of the worker."""

    def on_start(self) -> None: ...

    def on_message(self, message: Message) -> None: ...

    def on_death(self, reason: str, retry_in_s: float) -> None: ...

    def on_no_worker(self, reason: str, retry_in_s: float) -> None: ...


class Supervisor:
    """Runs one job until it has failed for good or is cancelled."""

    def __init__(
        self,
        placement: Placement,
        job: Callable[[], WorkerJob],
        supervised: Supervised,
        patience: Patience = Patience(),
    ) -> None:
        """`job` is asked for each worker's."""
        self._placement = placement
        self._job = job
        self._supervised = supervised
        self._patience = patience
        self._worker: WorkerHandle | None = None

    def send(self, message: Message) -> bool:
        """Sends to the running worker; between two of them nothing is sent, as each starts from scratch.
        False where the message is lost."""
        return self._worker is not None and self._worker.send(message)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        quick_deaths = 0
        while True:
            started_s = loop.time()
            try:
                worker = await self._placement.start(self._job())
            except OSError as exc:
                reason, heard = f"no worker could be started: {exc}", self._supervised.on_no_worker
            else:
                ending = await self._run_worker(worker)
                if isinstance(ending, StreamEnded):
                    return
                reason, heard = ending.reason, self._supervised.on_death
            quick_deaths = 0 if loop.time() - started_s > self._patience.steady_s else quick_deaths + 1
            retry_in_s = self._backoff_s(quick_deaths)
            heard(reason, retry_in_s)
            await asyncio.sleep(retry_in_s)

    def _backoff_s(self, quick_deaths: int) -> float:
        """The first death is answered at once, as viewers wait; only repeated ones are a pattern."""
        if quick_deaths < 2:
            return 0.0
        # The exponent is bounded: years of retrying would overflow a float.
        backoff_s = self._patience.first_backoff_s * 2.0 ** min(quick_deaths - 2, 16)
        return min(backoff_s, self._patience.longest_backoff_s)

    async def _run_worker(self, worker: WorkerHandle) -> Ending:
        """Why it ended, by its own word or by its exit status."""
        self._worker = worker
        self._supervised.on_start()
        ending: Ending = WorkerEnded("")
        try:
            ending = await self._listen(worker)
        finally:
            self._worker = None
            # One that hangs or talks nonsense would not do as it is asked.
            at_once = isinstance(ending, WorkerEnded) and bool(ending.reason)
            how = await worker.stop(at_once=at_once)
        return WorkerEnded(how) if ending == WorkerEnded("") else ending

    async def _listen(self, worker: WorkerHandle) -> Ending:
        """Hears the worker until it is gone or must go."""
        silence = _Silence(self._patience)
        last_word = ""
        try:
            async with asyncio.timeout(None) as limit:
                watch = asyncio.create_task(silence.watch(limit))
                try:
                    async for message in worker.messages():
                        if isinstance(message, Heartbeat):
                            silence.broken()
                        if isinstance(message, WorkerBroken):
                            last_word = message.reason
                            continue
                        self._supervised.on_message(message)
                        if isinstance(message, JobImpossible):
                            return StreamEnded()
                finally:
                    watch.cancel()
        except TimeoutError:
            return WorkerEnded(f"the worker gave no sign of life for {silence.longest_s:g} s")
        except ProtocolError as exc:
            return WorkerEnded(f"the worker spoke nonsense: {exc}")
        return WorkerEnded(last_word)


class _Silence:
    """Counts a worker's silence in ticks of the event loop: a gateway that was itself held up must
    not take it out on its workers."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._tick_s = patience.heartbeat_s / TICKS
        self._ticks_left = patience.start_s / self._tick_s
        self.longest_s = patience.start_s

    def broken(self) -> None:
        self._ticks_left = TICKS
        self.longest_s = self._patience.heartbeat_s

    async def watch(self, limit: asyncio.Timeout) -> None:
        while self._ticks_left > 0:
            await asyncio.sleep(self._tick_s)
            self._ticks_left -= 1
        limit.reschedule(asyncio.get_running_loop().time())
