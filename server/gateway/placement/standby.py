"""Workers started ahead, without a job: imports done, engines compiled. One takes over where another dies."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from server.gateway.placement.process import LocalWorkerHandle
from server.wire.logs import get_logger
from server.wire.messages import Prepare

log = get_logger(__name__)

_PAUSE_S = 5.0  # after one that died while it waited


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Standby:
    worker: LocalWorkerHandle
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class Standbys:
    """So many as wanted, from when a stream first runs; one that is taken is replaced once another stream's
    engine is there, so that it takes no time of who is in a hurry."""

    def __init__(self, count: int, start: Callable[[], Awaitable[LocalWorkerHandle]]) -> None:
        """`start` raises OSError where it can't."""
        self._count = count
        self._start = start
        self._engines: dict[object, Prepare | None] = {}  # of whoever runs
        self._waiting: list[_Standby] = []
        self._tasks: set[asyncio.Task[None]] = set()  # one for each that there is or should be

    def keep(self, count: int) -> None:
        """So many from now on; those that wait already stay."""
        self._count = count

    def needed_for(self, who: object, engine: Prepare | None) -> None:
        """Somebody runs, whose worker may have to be replaced; `engine` is compiled ahead."""
        new = engine is not None and engine not in self._engines.values()
        self._engines[who] = engine
        for standby in self._waiting:
            if new and engine is not None:
                standby.worker.send(engine)
        while len(self._tasks) < self._count:
            task = asyncio.create_task(self._keep_one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, who: object) -> None:
        self._engines.pop(who, None)

    def take(self) -> LocalWorkerHandle | None:
        """One that can begin now, for the caller to end."""
        while self._waiting:
            standby = self._waiting.pop(0)
            if standby.worker.host.stopped():
                standby.worker.host.kill()
            elif not standby.worker.ended.done():
                standby.taken.set()
                return standby.worker
        return None

    async def close(self) -> None:
        """Ends those that wait."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _keep_one(self) -> None:
        """Until it is taken."""
        while True:
            try:
                standby = _Standby(worker=await self._start())
            except OSError as exc:
                log.warning("standby not started", reason=str(exc), retry_s=_PAUSE_S)
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                self._waiting.append(standby)
                for engine in {engine for engine in self._engines.values() if engine is not None}:
                    standby.worker.send(engine)
                taken = asyncio.ensure_future(standby.taken.wait())
                try:
                    await asyncio.wait((taken, standby.worker.ended), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    taken.cancel()
            finally:
                if standby in self._waiting:
                    self._waiting.remove(standby)
                if not standby.taken.is_set():
                    how = await standby.worker.stop(at_once=True)
            if standby.taken.is_set():
                return
            log.warning("standby gone", reason=how, retry_s=_PAUSE_S)
            await asyncio.sleep(_PAUSE_S)
