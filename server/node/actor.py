"""A host as an actor of a cluster engine: a process on some machine, with a door for gateways."""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from engine.machine import nvidia_gpus
from server.gateway.placement.local import LocalPlacement
from server.node.door import Door
from server.wire.hello import Ticket, wire_version
from server.wire.logs import Format, LogLevel, log_to_stderr
from server.wire.messages import Prepare

if TYPE_CHECKING:  # viewers may be waiting: what a host on CPUs can do without isn't imported
    from server.gateway.placement.slots import GpuSlots
    from server.settings import Settings


class HostActor:
    """Ends by being killed: its workers see their sockets close. Methods run on one event loop."""

    def __init__(
        self,
        *,
        log_as: tuple[Format, LogLevel, int],
        streams_per_worker: int,
        on_gpu_by: "Settings | None",
        where: Callable[[], tuple[str, str, str]],
    ) -> None:
        """`where` says on which node this is: its id, name and address. `on_gpu_by`: the GPU that it sees is
        its own, and shared by streams as these settings say."""
        log_to_stderr(*log_as)
        slots = _slots(on_gpu_by) if on_gpu_by is not None else None
        self._placement = LocalPlacement(slots, streams_per_worker=streams_per_worker)
        self._where = where
        self._door: Door | None = None
        self._opening = asyncio.Lock()

    async def begin(self, version: str) -> tuple[str, str]:
        """The node's id and name, once the door is open. Raises ValueError for another version."""
        if version != wire_version():
            raise ValueError(f"this host speaks {wire_version()}, the gateway {version}")
        node, name, address = self._where()
        async with self._opening:
            if self._door is None:
                door = Door(self._placement, node=name)
                await door.open(address)
                self._door = door
        return node, name

    async def admit(self, stream: str) -> Ticket:
        """After `begin`."""
        assert self._door is not None
        return self._door.admit(stream)

    async def prepare(self, engines: Collection[Prepare]) -> None:
        """A job may come in a hurry, for such an engine."""
        self._placement.prepare(engines)


def _slots(settings: "Settings") -> "GpuSlots | None":
    gpus = nvidia_gpus()
    if not gpus:
        return None
    # NumPy and pydantic: a host on CPUs, which viewers may wait for, begins without them.
    from engine.measure.gpu_costs import GpuCosts
    from server.gateway.placement.slots import usual_slots

    return usual_slots(gpus, settings, GpuCosts())
