"""Keeps one worker running: starts it, watches its heartbeat, replaces it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from server.gateway.placement import Placement, WorkerHandle
from server.wire.codec import ProtocolError
from server.wire.messages import Alive, JobImpossible, Message, WorkerBroken, WorkerJob

_TICK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a worker may be silent, and how soon it is replaced."""

    start_s: float = 60.0  # to the first sign of life: imports may take long on a busy machine
    silent_s: float = 0.3  # three signs of life missed, and nothing in the process is at work
    busy_s: float = 5.0  # likewise, but something is: it may be starved, or hold Python's lock
    deaths: int = 3  # so many within this time are a pattern: no further worker is started
    deaths_within_s: float = 60.0
    first_backoff_s: float = 0.5  # where none can be started
    longest_backoff_s: float = 30.0


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream has failed for good: no other worker would do better."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker must go or has gone; `reason` is "" where nobody says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerOutdated:
    """The next worker's job is another."""


Ending = StreamEnded | WorkerEnded | WorkerOutdated


class Supervised(Protocol):
    """Who hears of the worker."""

    def on_start(self, worker: WorkerHandle) -> None: ...

    def on_message(self, message: Message) -> None: ...

    def on_death(self, reason: str) -> None:
        """Another one is started at once, as viewers wait."""

    def on_quarantine(self, reason: str) -> None:
        """The last of too many deaths: no other is started until `release`."""

    def on_renewal(self) -> None: ...

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
        self._deaths: deque[float] = deque(maxlen=patience.deaths)
        self._released = asyncio.Event()
        self._renewal = asyncio.Event()  # the job has changed since it was asked for

    def release(self) -> None:
        """Forgets the deaths so far, and starts a worker again where they were too many."""
        self._deaths.clear()
        self._released.set()

    def send(self, message: Message) -> bool:
        """Sends to the running worker; between two of them nothing is sent, as each starts from scratch.
        False where the message is lost."""
        return self._worker is not None and self._worker.send(message)

    def renew(self) -> None:
        """The job is another: a new worker takes it over, at once, whatever the ones before came to."""
        self.release()
        self._renewal.set()

    async def run(self) -> None:
        refusals = 0
        while True:
            self._renewal.clear()
            try:
                worker = await self._placement.start(self._job())
            except OSError as exc:
                retry_in_s = self._backoff_s(refusals)
                refusals += 1
                self._supervised.on_no_worker(f"no worker could be started: {exc}", retry_in_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._renewal.wait(), retry_in_s)
                continue
            refusals = 0
            ending = await self._run_worker(worker)
            if isinstance(ending, StreamEnded):
                return
            if isinstance(ending, WorkerOutdated):
                self._supervised.on_renewal()
                continue
            await self._after_death(ending.reason)

    async def _after_death(self, reason: str) -> None:
        """Returns when another worker may start."""
        now_s = asyncio.get_running_loop().time()
        self._deaths.append(now_s)
        most, within_s = self._patience.deaths, self._patience.deaths_within_s
        if len(self._deaths) < most or now_s - self._deaths[0] > within_s:
            self._supervised.on_death(reason)
            return
        self._released.clear()
        pattern = f"it ended {most} workers within {within_s:g} s"
        self._supervised.on_quarantine(f"{pattern}, the last so: {reason}")
        await self._released.wait()

    def _backoff_s(self, refusals: int) -> float:
        # The exponent is bounded: years of retrying would overflow a float.
        backoff_s = self._patience.first_backoff_s * 2.0 ** min(refusals, 16)
        return min(backoff_s, self._patience.longest_backoff_s)

    async def _run_worker(self, worker: WorkerHandle) -> Ending:
        """Why it ended, by its own word or by its exit status."""
        self._worker = worker
        self._supervised.on_start(worker)
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
        silence = _Silence(self._patience, worker.at_work)
        try:
            async with asyncio.timeout(None) as limit:
                watches = [
                    asyncio.create_task(silence.watch(limit)),
                    asyncio.create_task(self._watch_renewal(limit)),
                ]
                try:
                    async for message in worker.messages():
                        if isinstance(message, Alive):
                            silence.broken()
                            continue
                        if isinstance(message, WorkerBroken):
                            return WorkerEnded(message.reason)
                        self._supervised.on_message(message)
                        if isinstance(message, JobImpossible):
                            return StreamEnded()
                finally:
                    for watch in watches:
                        watch.cancel()
        except TimeoutError:
            if self._renewal.is_set():
                return WorkerOutdated()
            return WorkerEnded(f"the worker gave no sign of life for {silence.lasted_s:g} s")
        except ProtocolError as exc:
            return WorkerEnded(f"the worker spoke nonsense: {exc}")
        return WorkerEnded("")

    async def _watch_renewal(self, limit: asyncio.Timeout) -> None:
        await self._renewal.wait()
        limit.reschedule(asyncio.get_running_loop().time())


class _Silence:
    """Counts a worker's silence in ticks of the event loop: a gateway that was itself held up must
    not take it out on its workers."""

    def __init__(self, patience: Patience, at_work: Callable[[], bool]) -> None:
        self._patience = patience
        self._at_work = at_work
        self._heard = False
        self._ticks = 0

    @property
    def lasted_s(self) -> float:
        return round(self._ticks * _TICK_S, 2)

    def broken(self) -> None:
        self._heard = True
        self._ticks = 0

    async def watch(self, limit: asyncio.Timeout) -> None:
        while not self._too_long():
            await asyncio.sleep(_TICK_S)
            self._ticks += 1
        limit.reschedule(asyncio.get_running_loop().time())

    def _too_long(self) -> bool:
        if not self._heard:
            return self.lasted_s >= self._patience.start_s
        if self.lasted_s < self._patience.silent_s:
            return False
        return self.lasted_s >= self._patience.busy_s or not self._at_work()
