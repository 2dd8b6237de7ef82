"""Workers as processes of this machine, spread over its GPUs; some wait ahead for the next that dies."""

import logging
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from engine.backends.require_gpu import GPU_BACKENDS
from engine.machine import Gpu
from server.gateway.placement import SlotUse, WorkerHandle
from server.gateway.placement.process import LocalWorkerHandle, start_process
from server.gateway.placement.slots import GpuSlots
from server.gateway.placement.standby import Standbys
from server.wire.messages import EngineLoad, WorkerJob

log = logging.getLogger(__name__)


class LocalPlacement:
    """One process for each job. A worker ends by itself when its socket does, however the gateway ended.

    On a machine with GPUs each worker whose job may use one sees one GPU, and no more workers share it than
    there are slots. A job that viewers wait for goes to a standby, where there is one."""

    def __init__(
        self,
        gpus: Sequence[Gpu] = (),
        slots_per_gpu: int = 1,
        *,
        standby: int = 0,
        module: str = "server.worker.main",
    ) -> None:
        self._slots = GpuSlots(gpus, slots_per_gpu)
        self._module = module
        self._standbys = Standbys(standby, lambda: start_process(module, {}))

    def gpu_slots(self) -> Sequence[SlotUse]:
        return self._slots.usage()

    async def close(self) -> None:
        await self._standbys.close()

    async def start(self, job: WorkerJob) -> WorkerHandle:
        gpu = self._slots.take() if self.gpu_slots() and _may_use_gpu(job) else None
        try:
            worker = self._standbys.take() if job.takes_over else None
            if worker is None:
                worker = await start_process(self._module, _sees(gpu))
            else:
                log.info("stream %s: a standby takes over", job.stream)
        except BaseException:
            self._give_back(gpu)
            raise
        worker.ended.add_done_callback(lambda _: self._give_back(gpu))
        if gpu is not None:
            log.info("stream %s: its worker is on GPU %d, %s", job.stream, gpu.index, gpu.name)
        self._stand_by_for(worker, job, gpu)
        worker.send(replace(job, gpu="" if gpu is None else gpu.uuid))
        return worker

    def _give_back(self, gpu: Gpu | None) -> None:
        if gpu is not None:
            self._slots.give_back(gpu)

    def _stand_by_for(self, worker: LocalWorkerHandle, job: WorkerJob, gpu: Gpu | None) -> None:
        """Has standbys prepared for the engine that the worker will load. Not beside it: it is in a hurry."""

        def on_engine(load: EngineLoad) -> None:
            if load.state == "loading" or worker.ended.done():
                return
            # A standby has no GPU, until it is known which one.
            ready = load.state == "ready" and gpu is None
            engine = job.engine(
                width=load.width, height=load.height, matrix=load.matrix, full_range=load.full_range
            )
            self._standbys.needed_for(worker, engine if ready else None)

        worker.on_engine = on_engine
        worker.ended.add_done_callback(lambda _: self._standbys.forget(worker))


def _sees(gpu: Gpu | None) -> dict[str, str]:
    """What a worker's environment has to say."""
    return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu.uuid}


def _may_use_gpu(job: WorkerJob) -> bool:
    """Compiled artifacts are for the CPU."""
    if job.backend is None:
        return not Path(job.model).is_dir()
    return job.backend in GPU_BACKENDS
