"""Where the packets of a stream come from that is at home at another gateway: from there."""

from collections.abc import Awaitable, Callable

from server.gateway.placement import Placement, SlotUse, WorkerHandle
from server.gateway.placement.remote import RemoteWorkerHandle, subscribe
from server.wire.hello import Ticket, Viewers
from server.wire.messages import WorkerJob


class HomePlacement:
    """A `Placement` whose workers are subscriptions at the stream's home, wherever that is by then; once the
    stream has come home to this gateway, real ones."""

    def __init__(self, find: Callable[[str], Awaitable[Ticket]]) -> None:
        """`find` raises OSError."""
        self._find = find
        self.here: Placement | None = None  # where this gateway's own workers are: set as it comes home
        self._subscription: RemoteWorkerHandle | None = None  # the last
        self._told: tuple[RemoteWorkerHandle, Viewers] | None = None

    async def start(self, job: WorkerJob) -> WorkerHandle:
        if self.here is not None:
            return await self.here.start(job)
        self._subscription = await subscribe(await self._find(job.stream), job.stream)
        return self._subscription

    def tell(self, viewers: Viewers) -> None:
        """Has the home know how many there are here; where it can't be told now, it is the next time."""
        there = self._subscription
        if there is not None and self._told != (there, viewers) and there.send(viewers):
            self._told = there, viewers

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> tuple[SlotUse, ...]:
        return ()
