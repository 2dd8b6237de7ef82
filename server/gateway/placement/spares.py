"""Hosts that wait ahead on other nodes, their engines compiled: one takes over where a node is lost."""

import asyncio
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from server.wire.messages import EngineLoad, Opened, Prepare, WorkerJob


class Spare(Protocol):
    """A host, asked for and some time later there."""

    @property
    def node(self) -> str:
        """Where it is, once it has begun."""
        ...

    @property
    def begun(self) -> asyncio.Task[None]: ...

    def prepare(self, engines: Collection[Prepare]) -> None: ...

    def end(self) -> None: ...


S = TypeVar("S", bound=Spare)


class Spares(Generic[S]):
    """So many as wanted, from when a stream first runs; asked for one after the other, so that they are on
    different nodes. One that is taken is replaced once another engine is there."""

    def __init__(
        self,
        count: int,
        ask_for: Callable[[WorkerJob, Collection[str]], S],
        *,
        kept_off: Callable[[], set[str]],
        streams_on: Callable[[str], int],
    ) -> None:
        """`ask_for` a host for such a job, on another node than those, where there is one."""
        self._count = count
        self._ask_for = ask_for
        self._kept_off = kept_off
        self._streams_on = streams_on
        self._spares: list[S] = []
        self._engines: dict[str, Prepare] = {}  # of each stream

    def hear(self, job: WorkerJob, facts: EngineLoad | Opened) -> None:
        """The stream's engine is there: from now on its node may be lost."""
        if isinstance(facts, Opened) or facts.state == "loading":
            return
        if facts.state == "ready":
            self._engines[job.stream] = job.engine_of(facts)
        kept_off = self._kept_off()
        for spare in tuple(self._spares):
            failed = spare.begun.done() and not _went_well(spare.begun)
            if failed or spare.node in kept_off:
                self._spares.remove(spare)
                spare.end()
        self._fill(job)

    def forget(self, stream: str) -> None:
        self._engines.pop(stream, None)

    def take(self) -> S | None:
        """One that is there, on the node with the fewest streams; for the caller to end."""
        there = [spare for spare in self._spares if spare.begun.done()]
        for spare in sorted(there, key=lambda spare: self._streams_on(spare.node)):
            self._spares.remove(spare)
            if _went_well(spare.begun) and spare.node not in self._kept_off():
                return spare
            spare.end()
        return None

    def close(self) -> None:
        for spare in self._spares:
            spare.end()

    def _fill(self, job: WorkerJob) -> None:
        for spare in self._spares:
            spare.prepare(set(self._engines.values()))
        if len(self._spares) < self._count and all(spare.begun.done() for spare in self._spares):
            spare = self._ask_for(job, [spare.node for spare in self._spares])
            self._spares.append(spare)
            spare.begun.add_done_callback(lambda begun: self._fill(job) if _went_well(begun) else None)


def _went_well(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None
