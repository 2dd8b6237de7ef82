"""Keeps one worker running: starts it, watches its heartbeat, replaces it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from server.gateway.placement import Placement, WorkerHandle
from server.gateway.streams.splice import Splice
from server.wire.codec import ProtocolError
from server.wire.messages import (
    Alive,
    JobImpossible,
    Message,
    RequestKeyframe,
    SetLogLevel,
    Watch,
    WorkerBroken,
    WorkerJob,
)

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
    move_s: float = 60.0  # until another worker has its engine and has taken over


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream has failed for good: no other worker would do better."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker must go or has gone; `reason` is "" where nobody says why."""

    reason: str
    lost: bool = False  # its machine was, which is no fault of the stream


@dataclass(frozen=True, slots=True)
class WorkerOutdated:
    """The next worker's job is another."""


@dataclass(frozen=True, slots=True)
class WorkerReplaced:
    """Another one, which runs already, has taken over."""

    by: "_Turn"


Ending = StreamEnded | WorkerEnded | WorkerOutdated | WorkerReplaced


class CantMove(Exception):
    """No other worker has taken over: the stream goes on as it was."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Turn:
    """A worker that is listened to. `replaced` is set once another has taken over."""

    worker: WorkerHandle
    deliver: Callable[[Message], None]
    replaced: asyncio.Event = field(default_factory=asyncio.Event)
    by: "_Turn | None" = None
    listening: asyncio.Task[Ending] | None = None


class Supervised(Protocol):
    """Who hears of the worker."""

    def on_start(self, worker: WorkerHandle) -> None: ...

    def on_message(self, message: Message) -> None: ...

    def on_death(self, reason: str) -> None:
        """Another one is started at once, as viewers wait."""

    def on_quarantine(self, reason: str) -> None:
        """The last of too many deaths: no other is started until `release`."""

    def on_next(self, worker: WorkerHandle) -> None:
        """It has been started beside the present one, to take over."""

    def on_takeover(self, worker: WorkerHandle, job: WorkerJob) -> None:
        """What follows is of that worker, and goes on where the one before ended."""

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
        self._turn: _Turn | None = None  # of the worker that is heard
        self._next: WorkerHandle | None = None  # which is to take over
        self._moving: asyncio.Task[None] | None = None
        self._changing: asyncio.Task[None] | None = None  # that, where the next one's job is another
        self._deaths: deque[float] = deque(maxlen=patience.deaths)
        self._released = asyncio.Event()
        self._renewal = asyncio.Event()  # the job has changed since it was asked for

    @property
    def runs(self) -> bool:
        """Whether a worker is heard: not between two of them."""
        return self._turn is not None

    def release(self) -> None:
        """Forgets the deaths so far, and starts a worker again where they were too many."""
        self._deaths.clear()
        self._released.set()

    def send(self, message: Message) -> bool:
        """Sends to the running worker; between two of them nothing is sent, as each starts from scratch.
        False where the message is lost. What is watched, or to be logged, the next one hears, too."""
        if isinstance(message, Watch | SetLogLevel) and self._next is not None:
            self._next.send(message)
        return self._turn is not None and self._turn.worker.send(message)

    async def move(self) -> None:
        """Returns once another worker has taken over at a key frame. Raises CantMove."""
        if self._moving is None or self._moving.done():
            self._moving = self._begin_move(self._job(), lambda: None, stands_in=True)
        await _moved(self._moving)

    async def change(self, job: WorkerJob, on_takeover: Callable[[], None]) -> None:
        """As `move`, by a worker with that job, whose own engine has to be there. `on_takeover` is called as
        it takes over; what was on its way ends for it."""
        while self._moving is not None and not self._moving.done():
            await _end(self._moving)
        self._moving = self._changing = self._begin_move(job, on_takeover, stands_in=False)
        await _moved(self._moving)

    async def end_change(self) -> None:
        """Has no other job begin any more that was to."""
        if self._changing is not None and not self._changing.done():
            await _end(self._changing)

    def _begin_move(
        self, job: WorkerJob, on_takeover: Callable[[], None], *, stands_in: bool
    ) -> asyncio.Task[None]:
        """Raises CantMove."""
        if self._turn is None:
            raise CantMove("no worker runs")
        moving = asyncio.create_task(self._move(self._turn, job, on_takeover, stands_in=stands_in))
        moving.add_done_callback(lambda task: task.cancelled() or task.exception())
        return moving

    def renew(self) -> None:
        """The job is another: a new worker takes it over, at once, whatever the ones before came to."""
        self.release()
        self._renewal.set()

    async def run(self) -> None:
        try:
            await self._keep_running()
        finally:
            if self._moving is not None:
                await _end(self._moving)

    async def _keep_running(self) -> None:
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
                    refusals = 0
                continue
            refusals = 0
            ending = await self._run_worker(worker)
            if isinstance(ending, StreamEnded):
                return
            if isinstance(ending, WorkerOutdated):
                self._supervised.on_renewal()
                continue
            assert isinstance(ending, WorkerEnded)
            if ending.lost:
                self._supervised.on_death(ending.reason)
            else:
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
        """Why it ended, by its own word or by its exit status; of those that took over from it, the last."""
        turn = self._turn = _Turn(worker=worker, deliver=self._supervised.on_message)
        self._supervised.on_start(worker)
        while True:
            self._turn = turn
            turn.listening = turn.listening or asyncio.create_task(self._listen(turn))
            ending: Ending = WorkerEnded("")
            try:
                ending = await turn.listening
            finally:
                if not isinstance(ending, WorkerReplaced):
                    self._turn = None
                    if self._moving is not None:
                        self._moving.cancel()  # it ends behind us: viewers wait
                # One that hangs or talks nonsense would not do as it is asked.
                at_once = isinstance(ending, WorkerEnded) and bool(ending.reason)
                how = await turn.worker.stop(at_once=at_once)
            if not isinstance(ending, WorkerReplaced):
                return WorkerEnded(how, turn.worker.lost) if ending == WorkerEnded("") else ending
            turn = ending.by

    async def _move(
        self, present: _Turn, job: WorkerJob, on_takeover: Callable[[], None], *, stands_in: bool
    ) -> None:
        """`stands_in`: it takes over, too, where something stands in for its engine. Raises CantMove."""
        try:
            worker = await self._placement.start(job)
        except OSError as exc:
            raise CantMove(f"no worker could be started: {exc}") from exc
        following = _Turn(worker=worker, deliver=lambda message: splice.from_next(message))

        def on_switch() -> None:
            present.by = self._turn = following
            on_takeover()
            self._supervised.on_takeover(worker, job)
            present.replaced.set()

        splice = Splice(
            deliver=self._supervised.on_message,
            request_keyframe=lambda: worker.send(RequestKeyframe()),
            on_switch=on_switch,
            stands_in=stands_in,
        )
        self._next, present.deliver = worker, splice.from_present
        following.listening = asyncio.create_task(self._listen(following))
        self._supervised.on_next(worker)
        try:
            await self._watch_splice(splice, following.listening)
        except asyncio.CancelledError:
            if not splice.done:  # else it is too late: another has taken over
                raise
        finally:
            self._next = None
            if not splice.done:
                splice.give_up()
                await _end(following.listening)
                await worker.stop()

    async def _watch_splice(self, splice: Splice, listening: asyncio.Task[Ending]) -> None:
        """Returns once it is done. An engine may take minutes to be built. Raises CantMove."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._patience.move_s
        while not splice.done:
            await asyncio.wait([listening], timeout=_TICK_S)
            splice.tick()
            if splice.done:
                return
            if splice.last_word:
                raise CantMove(f"the next worker can't: {splice.last_word}")
            if listening.done():
                ending = listening.result()
                raise CantMove("the next worker has ended" + _because(ending))
            if splice.loading:
                until_s = loop.time() + self._patience.move_s
            if loop.time() > until_s:
                raise CantMove(f"no other worker could take over within {self._patience.move_s:g} s")

    async def _listen(self, turn: _Turn) -> Ending:
        """Hears the worker until it is gone or must go."""
        worker = turn.worker
        silence = _Silence(self._patience, worker.at_work)
        try:
            async with asyncio.timeout(None) as limit:
                watches = [
                    asyncio.create_task(silence.watch(limit)),
                    asyncio.create_task(_end_when(self._renewal, limit)),
                    asyncio.create_task(_end_when(turn.replaced, limit)),
                ]
                try:
                    async for message in worker.messages():
                        if isinstance(message, Alive):
                            silence.broken()
                            continue
                        if isinstance(message, WorkerBroken):
                            return WorkerEnded(message.reason)
                        turn.deliver(message)
                        if isinstance(message, JobImpossible):
                            return StreamEnded()
                finally:
                    for watch in watches:
                        watch.cancel()
        except TimeoutError:
            if turn.by is not None:
                return WorkerReplaced(turn.by)
            if self._renewal.is_set():
                return WorkerOutdated()
            return WorkerEnded(f"the worker gave no sign of life for {silence.lasted_s:g} s")
        except ProtocolError as exc:
            return WorkerEnded(f"the worker spoke nonsense: {exc}")
        return WorkerEnded("")


async def _moved(moving: asyncio.Task[None]) -> None:
    """Raises CantMove."""
    await asyncio.wait([moving])
    if moving.cancelled():
        raise CantMove("its worker has ended meanwhile, or was to change again")
    moving.result()


def _because(ending: Ending) -> str:
    return f": {ending.reason}" if isinstance(ending, WorkerEnded) and ending.reason else ""


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _end_when(event: asyncio.Event, limit: asyncio.Timeout) -> None:
    await event.wait()
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
