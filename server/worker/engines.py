"""Which engines a job's pictures go through, and how each is loaded."""

from collections.abc import Callable, Hashable

from msgspec.structs import replace

from engine.backends.require_gpu import GPU_BACKENDS
from engine.errors import EngineError
from engine.frame import Colour, Engine, EngineSpec
from engine.load import choose, load_engine, smaller_models
from engine.machine import nvidia_gpus
from server.wire.logs import Log
from server.wire.messages import BICUBIC, GpuUse, Prepare, WorkerJob
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.supply import LoadEngine

# How a job's engines are loaded; what is called with words on how far a long build is.
LoadBy = Callable[[WorkerJob, Callable[[str], None]], LoadEngine]


def engine_loader(job: WorkerJob, on_progress: Callable[[str], None]) -> LoadEngine:
    def load(width: int, height: int, colour: Colour) -> Engine:
        on_progress("")  # what was said of the last one
        try:
            return load_engine(
                job.model,
                width=width,
                height=height,
                colour=colour,
                backend=job.backend,
                threads=job.engine_threads,
                lanes=job.lanes,
                on_progress=on_progress,
            )
        except ValueError as exc:  # a size that no engine takes
            raise EngineError(str(exc)) from exc

    return load


def engine_key(wanted: Prepare) -> Hashable:
    """What two streams have in common that can share an engine. The weights themselves are part of it: a file
    may be replaced by another of the same name. Raises EngineError where there is no such model."""
    return wanted, choose(wanted.model, wanted.backend, None).spec(wanted.width, wanted.height)


def lower_models(job: WorkerJob) -> list[str]:
    """The job's ladder below its own model. Raises ValueError for a model of another scale, EngineError."""
    if job.ladder is None:
        return [*smaller_models(job.model, job.backend), BICUBIC]
    scale = choose(job.model, job.backend, None).config.scale
    for model in job.ladder:
        if model == BICUBIC:
            continue
        other = choose(model, job.backend, None).config.scale
        if other != scale:
            raise ValueError(f"ladder: {model!r} has scale {other}, but model {job.model!r} has {scale}")
    return list(job.ladder)


def bicubic_loader(job: WorkerJob) -> LoadEngine:
    """What stands in for the job's engine at once: of the same scale."""

    def load(width: int, height: int, colour: Colour) -> Engine:
        return bicubic_engine(width, height, choose(job.model, job.backend, None).config.scale)

    return load


def torch_loader(job: WorkerJob, load_by: LoadBy) -> LoadEngine | None:
    """What stands in for a TensorRT engine, which takes minutes to build: the same network by PyTorch, which
    is there within seconds. None where no TensorRT engine is wanted."""
    try:
        if choose(job.model, job.backend, None).backend != "tensorrt":
            return None
    except EngineError:  # loading says so, and fails the stream
        return None
    return load_by(replace(job, backend="cuda"), lambda _: None)


def gpu_use(spec: EngineSpec, *, lanes: int, on_gpu: bool) -> GpuUse | None:
    """What one stream takes by such an engine; None where that was not measured. `lanes`: 0 for as many as
    suit it."""
    if spec.performance is None:
        return None
    measured = spec.performance.surface if on_gpu else spec.performance.host
    lanes = lanes or measured.best
    return GpuUse(
        frame_s=measured.frame_ms[measured.best] / 1e3,
        engine_bytes=spec.performance.engine_bytes,
        lane_bytes=lanes * measured.lane_bytes,
    )


def stays_on_gpu(job: WorkerJob, encoder: str, log: Log) -> bool:
    """Whether pictures shall lie in the GPU's memory all the way: where the engine runs there and the encoder
    does too."""
    try:
        if not nvidia_gpus() or choose(job.model, job.backend, None).backend not in GPU_BACKENDS:
            return False
    except EngineError:  # loading says so, and fails the stream
        return False
    if encoder != "h264_nvenc":
        log.warning("pictures leave the GPU", reason=f"the encoder is {encoder}, not NVENC")
    return encoder == "h264_nvenc"
