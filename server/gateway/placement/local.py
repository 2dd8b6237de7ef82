"""Workers as processes of this machine, spread over its GPUs; some wait ahead for the next that dies."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.backends.require_gpu import GPU_BACKENDS
from engine.machine import Gpu
from server.gateway.placement import SlotUse, WorkerHandle
from server.gateway.placement.process import HostProcess, LocalWorkerHandle, start_process
from server.gateway.placement.standby import Standbys
from server.gateway.placement.suspects import Suspects
from server.wire.logs import get_logger
from server.wire.messages import EngineLoad, Opened, Prepare, WorkerJob

if TYPE_CHECKING:  # hosts on CPUs import this, in a hurry
    from server.gateway.placement.slots import GpuSlots, Seat

log = get_logger(__name__)


class LocalPlacement:
    """Puts each job into a process that has room for it, or a new one. A process ends with its last stream,
    and by itself when the gateway is gone, however that ended.

    On a machine with GPUs all jobs of a GPU share a process, which sees that GPU alone, and there are no more
    of them than slots. A job that viewers wait for goes to a standby, where there is one. A stream that was
    in two processes that died, or broke in them, is kept from others."""

    def __init__(
        self,
        slots: "GpuSlots | None" = None,
        *,
        standby: int = 0,
        streams_per_worker: int = 1,
        module: str = "server.worker.main",
    ) -> None:
        """`slots` of the machine's GPUs, None where it has none; `streams_per_worker`: of those on the
        CPU."""
        self._slots = slots
        self._module = module
        self._streams_per_worker = streams_per_worker
        self._prepares = False
        self._standbys = Standbys(standby, self._start_standby)
        self._suspects = Suspects()
        self._hosts: list[HostProcess] = []
        self._placing = asyncio.Lock()  # two streams that come at once find the same process

    def gpu_slots(self) -> Sequence[SlotUse]:
        return self._slots.usage() if self._slots is not None else ()

    async def close(self) -> None:
        await self._standbys.close()

    def prepare(self, engines: Collection[Prepare]) -> None:
        """Has one standby wait for whatever job comes, with these engines compiled, though no stream runs
        yet; none after it."""
        self._prepares = True
        self._standbys.keep(1)
        for engine in engines or (None,):
            self._standbys.needed_for(engine, engine)
        self._standbys.keep(0)

    async def start(self, job: WorkerJob) -> WorkerHandle:
        seat = self._slots.take(job) if self._slots is not None and may_use_gpu(job) else None
        gpu = seat.gpu if seat is not None else None
        try:
            async with self._placing:
                worker = await self._place(job, gpu)
        except BaseException:
            if seat is not None:
                seat.leave()
            raise
        worker.source_timeout_s = job.source_timeout_s
        if seat is not None:
            worker.left.add_done_callback(lambda _: seat.leave())
            log.info("worker on GPU", stream=job.stream, gpu=seat.gpu.number, gpu_name=seat.gpu.name)
        self._follow(worker, job, seat)
        worker.send(replace(job, gpu="" if gpu is None else gpu.uuid))
        return worker

    async def _place(self, job: WorkerJob, gpu: Gpu | None) -> LocalWorkerHandle:
        shares = gpu is not None or self._streams_per_worker > 1
        isolated = shares and self._suspects.isolated(job.stream)
        if isolated:
            log.warning("stream isolated", stream=job.stream, reason="it was in two workers that died")
        else:
            for host in self._hosts:
                if host.gpu == gpu and not host.isolated and self._has_room(host) and host.takes_another:
                    with contextlib.suppress(OSError):  # it is just ending
                        return await host.connect(job.stream)
        worker = self._standbys.take() if job.takes_over or self._prepares else None
        if worker is not None:
            if job.takes_over:
                log.info("standby takes over", stream=job.stream)
            worker.stream = job.stream
        else:
            worker = await self._start_process(job.stream, _sees(gpu))
        self._take_in(worker.host, gpu, isolated)
        return worker

    def _has_room(self, host: HostProcess) -> bool:
        """On a GPU the slots are what counts."""
        return host.gpu is not None or len(host.streams) < self._streams_per_worker

    def _take_in(self, host: HostProcess, gpu: Gpu | None, isolated: bool) -> None:
        host.gpu, host.isolated = gpu, isolated
        host.on_trouble = lambda streams: self._suspects.trouble(streams, isolated=isolated)
        self._hosts.append(host)
        host.ended.add_done_callback(lambda _: self._hosts.remove(host))

    async def _start_standby(self) -> LocalWorkerHandle:
        return await self._start_process("", {})

    async def _start_process(self, stream: str, environment: dict[str, str]) -> LocalWorkerHandle:
        host = await start_process(self._module, environment)
        try:
            return await host.connect(stream)
        except BaseException:
            host.kill()
            raise

    def _follow(self, worker: LocalWorkerHandle, job: WorkerJob, seat: "Seat | None") -> None:
        """Hears what the stream takes of its GPU, and has standbys prepared for the engine that it has
        loaded. Not beside it: it is in a hurry."""

        def on_facts(facts: EngineLoad | Opened) -> None:
            if seat is not None:
                seat.hear(facts)
            if isinstance(facts, Opened) or facts.state == "loading" or worker.left.done():
                return
            # A standby has no GPU, until it is known which one.
            ready = facts.state == "ready" and seat is None
            engine = job.engine_of(facts)
            self._standbys.needed_for(worker, engine if ready else None)

        worker.on_facts = on_facts
        worker.left.add_done_callback(lambda _: self._standbys.forget(worker))


def _sees(gpu: Gpu | None) -> dict[str, str]:
    """What a worker's environment has to say."""
    return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu.uuid}


def may_use_gpu(job: WorkerJob) -> bool:
    """Compiled artifacts are for the CPU."""
    if job.backend is None:
        return not Path(job.model).is_dir()
    return job.backend in GPU_BACKENDS
