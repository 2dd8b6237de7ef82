"""Where a stream's worker runs."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.machine import Gpu
from server.wire.messages import Message, WorkerJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Where a worker is that isn't on this machine, and how far the clock there is known to be from ours."""

    node: str
    clock_offset_s: float  # theirs less ours
    clock_error_s: float  # at most
    idle_cores: float  # lately


class WorkerHandle(Protocol):
    """A started worker of one stream, as the gateway holds it; its process may have other streams as well."""

    @property
    def elsewhere(self) -> Elsewhere | None:
        """None for a worker on this machine."""
        ...

    @property
    def isolated(self) -> bool:
        """Whether it is kept from other streams, as workers that it was in have died."""
        ...

    @property
    def lost(self) -> bool:
        """Whether it ended with its machine, or the way there: it is no fault of the stream."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Ends when the worker is gone; raises ProtocolError where it sends what is no message."""
        ...

    def send(self, message: Message) -> bool:
        """Returns at once. What a dead or stuck worker cannot take is lost, as is what is published where the
        worker is slow: False."""
        ...

    def at_work(self) -> bool:
        """Whether it computes, or would if it were let, however silent it is; False where nobody knows."""
        ...

    async def stop(self, *, at_once: bool = False) -> str:
        """Asks the worker to finish, ends it where it doesn't, and says how it ended. Safe more than once.

        With `at_once` it isn't waited for.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotUse:
    """How many workers a GPU has, and may have."""

    gpu: Gpu
    used: int
    slots: int


class Placement(Protocol):
    """Chooses where a job runs, and starts it there."""

    async def start(self, job: WorkerJob) -> WorkerHandle:
        """Raises OSError where no worker can be started."""
        ...

    async def close(self) -> None:
        """Ends what waits for jobs; workers are whoever's who has them."""
        ...

    def gpu_slots(self) -> Sequence[SlotUse]:
        """Slots of every GPU that workers are given, always in the same order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUse:
    """A machine of the cluster: what it has of what hosts ask for, and what of that is free."""

    name: str
    has: Mapping[str, float]
    free: Mapping[str, float]
    streams: tuple[str, ...]  # of this gateway, that have their worker there
    drained: bool  # no further stream starts there


class Cluster(Protocol):
    """Machines that workers may be on."""

    def missing_for(self, job: WorkerJob) -> str:
        """What is missing for one more such stream, which is asked for from then on, so that the cluster may
        grow; "" where there is room."""
        ...

    def nodes(self) -> Sequence[NodeUse]: ...

    def drain(self, node: str, *, drained: bool) -> None:
        """Lets no further stream start on that node, or lets them again. Raises KeyError for one that isn't
        there."""
        ...
