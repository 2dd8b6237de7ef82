"""Workers on the machines of a Ray cluster: each host is an actor, which Ray puts where there is room.

Only this file and its neighbours `ray_*.py` import ray. Packets go between gateway and host (`remote.py`),
never through Ray.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError

from server.gateway.placement import NodeUse, SlotUse
from server.gateway.placement.local import may_use_gpu
from server.gateway.placement.nodes import GPU, MEGAPIXELS, Node, Nodes, node_name
from server.gateway.placement.ray_node import where
from server.gateway.placement.remote import HostRefuses, HostUnreachable, RemoteWorkerHandle, connect
from server.gateway.placement.spares import Spares
from server.settings import Settings
from server.wire.hello import wire_version
from server.wire.logs import get_logger
from server.wire.messages import Prepare, WorkerJob

log = get_logger(__name__)

# For an actor to start where there is room. One that has none stays asked for, so that an autoscaler sees it,
# for longer than the longest pause between two tries.
_PLACED_S, _ASKED_FOR_S = 10.0, 90.0
_TRIES = 3
_ADMITTED_S, _LOOK_S = 2.0, 1.0


class _Host:
    """An actor, asked for and some time later there."""

    def __init__(self, actor: Any, resource: str, demand: float) -> None:
        self.actor = actor
        self.resource = resource
        self.demand = demand
        self.node = self.name = ""  # once it has begun
        self.streams: list[str] = []
        self.begun = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        self.node, self.name = await self.actor.begin.remote(wire_version())

    async def start(self, job: WorkerJob) -> RemoteWorkerHandle:
        """Raises HostUnreachable."""
        try:
            ticket = await asyncio.wait_for(self.actor.admit.remote(job.stream), _ADMITTED_S)
        except (RayError, TimeoutError) as exc:
            raise HostUnreachable(f"the host on {self.name} has gone") from exc
        return await connect(ticket, job)

    def prepare(self, engines: Collection[Prepare]) -> None:
        self.actor.prepare.remote(engines)

    def end(self) -> None:
        self.begun.cancel()
        with contextlib.suppress(RayError):
            ray.kill(self.actor)


class RayPlacement:
    """A `Placement` and a `Cluster`: a host for each stream, on GPUs one for all that fit."""

    def __init__(
        self, host: type, settings: Settings, *, demand: Callable[[WorkerJob], float], standby: int
    ) -> None:
        """`host`: class of the actors; `demand` on CPUs in MEGAPIXELS; `standby`: hosts that wait ahead."""
        self._class = ray.remote(host)
        self._settings = settings
        self._demand = demand
        self._hosts: list[_Host] = []
        self._asked_for: dict[str, _Host] = {}  # by stream: there was no room for it yet
        self._nodes = Nodes(_look())
        self._spares = Spares(
            standby, self._ask_for, kept_off=self._nodes.kept_off, streams_on=self._streams_on
        )
        self._looking: asyncio.Task[None] | None = None

    def gpu_slots(self) -> Sequence[SlotUse]:
        return ()  # each host has its own

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._spares.close()
        for host in (*self._hosts, *self._asked_for.values()):
            host.end()

    async def start(self, job: WorkerJob) -> RemoteWorkerHandle:
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        for host in [host for host in self._hosts if host.resource == GPU] if self._on_gpu(job) else []:
            if host.node not in self._nodes.kept_off():
                with contextlib.suppress(HostUnreachable):  # it is full
                    return self._follow(host, await host.start(job), job)
        for _ in range(_TRIES):
            host = await self._new_host(job)
            try:
                return self._follow(host, await host.start(job), job)
            except BaseException as exc:
                host.end()
                if not isinstance(exc, HostUnreachable):
                    raise
                log.warning("host failed", stream=job.stream, node=host.name, reason=str(exc))
                if not isinstance(exc, HostRefuses):
                    self._nodes.avoid(host.node)
                why = str(exc)
        raise OSError(why)

    def _follow(self, host: _Host, worker: RemoteWorkerHandle, job: WorkerJob) -> RemoteWorkerHandle:
        host.streams.append(job.stream)
        if host not in self._hosts:
            self._hosts.append(host)
        worker.on_left = lambda: self._left(host, worker)
        if host.resource == MEGAPIXELS:
            worker.on_facts = lambda facts: self._spares.hear(job, facts)
        log.info("worker on node", stream=job.stream, node=host.name)
        return worker

    def _left(self, host: _Host, worker: RemoteWorkerHandle) -> None:
        if worker.lost:
            self._nodes.avoid(host.node)
        host.streams.remove(worker.stream)
        if not any(worker.stream in other.streams for other in self._hosts):  # it has moved
            self._spares.forget(worker.stream)
        if not host.streams:
            self._hosts.remove(host)
            host.end()

    async def _new_host(self, job: WorkerJob) -> _Host:
        """One that has begun. Raises OSError where none has room."""
        if job.takes_over and not self._on_gpu(job) and (spare := self._spares.take()) is not None:
            log.info("standby takes over", stream=job.stream, node=spare.name)
            return spare
        host = self._asked_for.pop(job.stream, None) or self._ask_for(job)
        try:
            await asyncio.wait_for(asyncio.shield(host.begun), _PLACED_S)
        except TimeoutError:
            self._keep_asking(job.stream, host)
            raise OSError(self._shortage(job) or f"no host has begun within {_PLACED_S:g} s") from None
        except BaseException as exc:
            host.end()
            if isinstance(exc, RayError):
                raise OSError(str(exc).strip().splitlines()[-1]) from exc
            raise
        return host

    def _streams_on(self, node: str) -> int:
        return sum(len(host.streams) for host in self._hosts if host.node == node)

    def _on_gpu(self, job: WorkerJob) -> bool:
        return may_use_gpu(job) and self._nodes.have(GPU)

    def _ask_for(self, job: WorkerJob, but_on: Collection[str] = ()) -> _Host:
        on_gpu = self._on_gpu(job)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        options |= {"num_gpus": 1} if on_gpu else {"resources": {MEGAPIXELS: self._demand(job)}}
        if kept_off := sorted(self._nodes.kept_off(*but_on)):
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(kept_off)})"}
        logs = self._settings.log
        actor = self._class.options(**options).remote(
            log_as=(logs.format, logs.level, logs.repeats_per_min),
            streams_per_worker=self._settings.workers.streams_per_worker,
            on_gpu_by=self._settings if on_gpu else None,
            where=where,
        )
        if not on_gpu:
            actor.prepare.remote(())  # its process starts meanwhile
        return _Host(actor, GPU if on_gpu else MEGAPIXELS, 1.0 if on_gpu else self._demand(job))

    def _keep_asking(self, stream: str, host: _Host) -> None:
        """Until the stream asks again."""
        self._asked_for[stream] = host

        def forget() -> None:
            if self._asked_for.get(stream) is host:
                del self._asked_for[stream]
                host.end()

        asyncio.get_running_loop().call_later(_ASKED_FOR_S, forget)

    # Cluster

    def missing_for(self, job: WorkerJob) -> str:
        asked = self._asked_for.get(job.stream)
        if asked is not None and asked.begun.done():
            return ""
        shortage = self._shortage(job)
        if shortage and asked is None:
            self._keep_asking(job.stream, self._ask_for(job))
        return shortage

    def _shortage(self, job: WorkerJob) -> str:
        """Of GPUs hosts have their own count of what fits."""
        others = [host for stream, host in self._asked_for.items() if stream != job.stream]
        taken = sum(host.demand for host in others if host.resource == MEGAPIXELS)
        return "" if self._on_gpu(job) else self._nodes.shortage(MEGAPIXELS, self._demand(job), taken)

    def nodes(self) -> Sequence[NodeUse]:
        return self._nodes.uses((stream, host.node) for host in self._hosts for stream in host.streams)

    def drain(self, node: str, *, drained: bool) -> None:
        self._nodes.drain(node, drained=drained)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(RayError):
                self._nodes.look(await asyncio.to_thread(_look))


def _look() -> list[Node]:
    """Blocks for some milliseconds."""
    free = available_resources_per_node()
    return [
        Node(
            id=node["NodeID"],
            name=node_name(node["NodeID"], node["NodeManagerAddress"]),
            has=node["Resources"],
            free=free.get(node["NodeID"], {}),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
