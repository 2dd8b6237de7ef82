"""Measures every model, size, engine and number of lanes on this machine's GPU. Needs torch and a GPU."""

import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from engine.backends.cuda.choose_lanes import best, try_lanes
from engine.backends.cuda.device import CudaDevice, CudaStream, device_errors, planes
from engine.backends.cuda.engine import CudaEngine
from engine.backends.cuda.lanes import Work
from engine.backends.cuda.measure import measure_parity, noise_surface
from engine.backends.gpu import open_engine
from engine.backends.require_gpu import GPU_BACKENDS, require_gpu
from engine.backends.tensorrt.engine import TensorRtEngine, load_tensorrt
from engine.errors import DeviceFailed, EngineError
from engine.frame import Colour
from engine.load import Choice
from engine.machine import nvidia_gpus
from engine.measure.bench import random_checkpoint
from engine.measure.gpu_report import Case, FramesOn, GpuReport, Row, Span, Stage, overlap
from engine.network.checkpoint import Checkpoint, load_checkpoint
from engine.network.fold import fold
from engine.network.frame_net import frame_net
from engine.shipped import model_name, shipped_checkpoint, zoo
from engine.trials import FPS, DrivenLane, most_streams, noise_frame, run_bursts, run_trial

PAPER_MODELS = ("awsrn-s-x2", "awsrn-m-x2", "awsrn-x2")  # on random weights: they do not ship
SIZES = ((640, 360), (960, 540), (1280, 720), (1920, 1080))
_COLOUR = Colour()
_TRACED_FRAMES = 40
log = logging.getLogger(__name__)


def bench_gpu(sizes: Sequence[tuple[int, int]] = SIZES) -> GpuReport:
    """Takes long: TensorRT builds an engine for each model and size. What can't run is in the report with the
    reason. Raises BackendUnavailable where nothing can."""
    require_gpu("cuda")
    cases = tuple(_case(name, *size) for name in models() for size in sizes)
    installed = {"livesr": version("livesr"), "PyTorch": torch.__version__, "CUDA": str(torch.version.cuda)}
    return GpuReport(
        gpu=str(nvidia_gpus()[0]),
        versions=installed | _tensorrt_version(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        cases=cases,
    )


def models() -> list[str]:
    """One of each network that ships, as others of its shape take as long; and the paper's other ones."""
    shipped = {load_checkpoint(shipped_checkpoint(name)).config: name for name in reversed(zoo())}
    return [*sorted(shipped.values()), *PAPER_MODELS]


def _case(model: str, width: int, height: int) -> Case:
    log.info("%s at %d×%d", model, width, height)
    with ExitStack() as stack:
        random = random_checkpoint(model, stack)
        path = random or shipped_checkpoint(model)
        checkpoint = load_checkpoint(path)
        parity_db: dict[str, float] = {}
        rows: list[Row] = []
        failures: dict[str, str] = {}
        for backend in GPU_BACKENDS:
            try:
                parity_db[backend], measured = _engine(backend, checkpoint, path, width, height)
                rows += measured
            except (EngineError, DeviceFailed) as exc:
                failures[backend] = str(exc)
        return Case(
            model=model,
            random_weights=random is not None,
            width=width,
            height=height,
            scale=checkpoint.config.scale,
            eager_ms=_baseline(_eager(checkpoint, width, height)),
            compiled_ms=_baseline(_compiled(checkpoint, width, height)),
            parity_db=parity_db,
            rows=tuple(rows),
            failures=failures,
        )


def _engine(
    backend: str, checkpoint: Checkpoint, path: Path, width: int, height: int
) -> tuple[float, list[Row]]:
    """Parity, and a row for each kind and number of lanes. No gate: random weights are no picture."""
    choice = Choice(
        name=model_name(path), source=checkpoint, path=path, backend=backend, precision="fp16", why=""
    )
    spec = choice.spec(width, height)
    engine = open_engine(backend, checkpoint, path, _COLOUR, spec, on_progress=lambda _: None)
    parity_db = measure_parity(engine, checkpoint, _COLOUR)
    return parity_db, [*_rows(engine, "host"), *_rows(engine, "surface")]


def _rows(engine: CudaEngine | TensorRtEngine, frames: FramesOn) -> Iterator[Row]:
    """Each number of lanes. How many streams they carry is measured for the one that a service would run."""

    def lane() -> DrivenLane:
        return engine.lane() if frames == "host" else engine.surface_lane()

    frame = noise_frame(engine) if frames == "host" else noise_surface(engine)
    trials = try_lanes(lane, frame)
    for trial in trials:
        lanes, streams = [lane() for _ in range(trial.lanes)], None
        if trial is best(trials):
            limit = int(trial.frames_per_s / FPS)
            streams = most_streams(limit, partial(run_bursts, lanes, frame))
        with _traced(engine) as device:
            run_trial([lane() for _ in range(trial.lanes)], frame, seconds=0.0, frames=_TRACED_FRAMES)
            spans = device.spans()
        yield Row(
            backend=engine.spec.backend, frames=frames, trial=trial, streams=streams, overlap=overlap(spans)
        )


class _TracedDevice(CudaDevice):
    """Puts an event before and behind all work of its streams."""

    def __init__(self) -> None:
        self._streams: list[_TracedStream] = []
        super().__init__()

    def stream(self) -> CudaStream:
        stream = _TracedStream(self.torch_device)
        self._streams.append(stream)
        return stream

    def spans(self) -> list[Span]:
        """Times of all work so far, which must be done."""
        origin = self._streams[0].marks[0][0]
        stages: dict[CudaStream, Stage] = {self.copy_in: "copy in", self.copy_out: "copy out"}
        return [
            Span(
                stage=stages.get(stream, "compute"),
                start_ms=origin.elapsed_time(start),
                end_ms=origin.elapsed_time(end),
            )
            for stream in self._streams
            for start, end in stream.marks
        ]


class _TracedStream(CudaStream):
    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def enqueue(self, work: Work) -> None:
        start, end = _timing_event(), _timing_event()
        start.record(self.raw)
        super().enqueue(work)
        end.record(self.raw)
        self.marks.append((start, end))


@contextmanager
def _traced(engine: CudaEngine | TensorRtEngine) -> Iterator[_TracedDevice]:
    """Lanes that the engine makes meanwhile are on a traced device."""
    device, engine.device = engine.device, _TracedDevice()
    try:
        assert isinstance(engine.device, _TracedDevice)
        yield engine.device
    finally:
        engine.device = device


def _baseline(run: Callable[[], object]) -> float | str:
    """Milliseconds a run takes on the GPU, the median of many; or why it can't."""
    try:
        with device_errors("in a baseline"), torch.no_grad():
            for _ in range(5):
                run()
            events = [_timing_event() for _ in range(31)]
            for event in events:
                event.record()
                run()
            torch.cuda.synchronize()
            return statistics.median(float(a.elapsed_time(b)) for a, b in pairwise(events))
    except DeviceFailed as exc:  # PyTorch's compiler too says what it can't by a RuntimeError
        return str(exc)
    finally:
        torch.cuda.empty_cache()


def _eager(checkpoint: Checkpoint, width: int, height: int) -> Callable[[], object]:
    def prepare() -> tuple[nn.Module, torch.Tensor]:
        x = 255 * torch.rand(1, checkpoint.config.channels, height, width, device="cuda")
        return checkpoint.network().cuda(), x

    return _prepared(prepare)


def _compiled(checkpoint: Checkpoint, width: int, height: int) -> Callable[[], object]:
    def prepare() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        torch.compiler.reset()  # it gives up on a function that it has compiled for many sizes
        net = frame_net(fold(checkpoint.network()), checkpoint.config, _COLOUR, torch.float16).cuda()
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        y, uv = planes(width, height, device=torch.device("cuda"))
        compiled: nn.Module = torch.compile(net, mode="reduce-overhead")  # type: ignore[assignment]
        return compiled, y, uv

    return _prepared(prepare)


def _prepared(prepare: Callable[[], tuple[nn.Module, *tuple[torch.Tensor, ...]]]) -> Callable[[], object]:
    """Prepares at the first run, inside of what maps a GPU's errors."""
    ready: list[tuple[nn.Module, *tuple[torch.Tensor, ...]]] = []

    def run() -> object:
        if not ready:
            ready.append(prepare())
        net, *inputs = ready[0]
        return net(*inputs)

    return run


def _timing_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _tensorrt_version() -> dict[str, str]:
    try:
        require_gpu("tensorrt")
    except EngineError:
        return {}
    return {"TensorRT": str(load_tensorrt().__version__)}
