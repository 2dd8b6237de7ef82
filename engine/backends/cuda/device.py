"""CUDA by PyTorch behind the seams of `engine.backends.cuda.lanes`: streams, events, pinned memory, graphs.

A lane's program is a CUDA graph over memory that stays where it is, so that a frame costs the host a few
calls, and nothing is allocated on the frame path once there are surfaces enough.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engine.backends.cuda.lanes import DeviceLane, Output_co, Work
from engine.backends.cuda.surfaces import SurfaceSink, read_surface, surface_pool
from engine.errors import BackendUnavailable, DeviceFailed
from engine.frame import DeviceFrame, EngineSpec, YuvFrame

Planes = tuple[Tensor, Tensor]  # y (1, 1, h, w) and uv (1, 2, h/2, w/2), uint8
Output = TypeVar("Output", bound=YuvFrame | DeviceFrame)

# A graph must not hold what only the first runs do: choosing algorithms, loading kernels.
_WARM_UPS = 3
_capturing = threading.Lock()  # one capture at a time in a process


def require_cuda(backend: str) -> None:
    """Raises BackendUnavailable."""
    if torch.version.cuda is None:
        built = f"PyTorch {torch.__version__} is built without CUDA"
        raise BackendUnavailable(f"backend={backend!r} needs CUDA, and {built}: pip install 'livesr[gpu]'")
    if not torch.cuda.is_available():
        raise BackendUnavailable(f"backend={backend!r} needs an NVIDIA GPU, and PyTorch can use none here")


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """What PyTorch says of a failed GPU, as DeviceFailed."""
    try:
        yield
    except DeviceFailed:
        raise
    except torch.OutOfMemoryError as exc:
        raise DeviceFailed(f"the GPU is out of memory {doing}: {_first_line(exc)}") from exc
    except RuntimeError as exc:  # CUDA's, cuDNN's and cuBLAS's errors have no narrower class in common
        raise DeviceFailed(f"the GPU failed {doing}: {_first_line(exc)}") from exc


class CudaEvent:
    def __init__(self) -> None:
        # Blocking: who waits sleeps, and its core is free for decoder and encoder.
        self.raw = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        with device_errors("while it computed a frame"):
            self.raw.synchronize()


class CudaStream:
    def __init__(self, device: torch.device, *, priority: int = 0) -> None:
        self.raw = torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]

    def enqueue(self, work: Work) -> None:
        with device_errors("when it was given work"), torch.cuda.stream(self.raw), torch.no_grad():
            work()

    def record(self, event: CudaEvent) -> None:
        with device_errors("when it was given work"):
            event.raw.record(self.raw)

    def wait_for(self, event: CudaEvent) -> None:
        with device_errors("when it was given work"):
            self.raw.wait_event(event.raw)


class _ForeignStream(CudaStream):
    def __init__(self, handle: int) -> None:
        if handle == 0:
            self.raw = torch.cuda.default_stream()
        else:
            self.raw = torch.cuda.ExternalStream(handle)  # type: ignore[no-untyped-call]


class CudaDevice:
    """The GPU that is PyTorch's current one when it is made, for the lanes of one engine."""

    def __init__(self) -> None:
        self.torch_device = torch.device("cuda", torch.cuda.current_device())
        self.copy_in, self.copy_out = self.stream(), self.stream()

    def stream(self) -> CudaStream:
        return CudaStream(self.torch_device)

    def event(self) -> CudaEvent:
        return CudaEvent()

    def producer(self, handle: int) -> CudaStream:
        return _ForeignStream(handle)


class Sink(Protocol[Output_co]):
    """Buffers that a lane's results go to."""

    @property
    def output(self) -> Output_co: ...

    def take(self, y: Tensor, uv: Tensor) -> None:
        """Work: copies planes of the device there."""
        ...


class HostSink:
    """Pinned memory, the same for every frame."""

    def __init__(self, width: int, height: int) -> None:
        self._y, self._uv = planes(width, height, pinned=True)
        self.output = host_frame(self._y, self._uv)

    def take(self, y: Tensor, uv: Tensor) -> None:
        self._y.copy_(y, non_blocking=True)
        self._uv.copy_(uv, non_blocking=True)


class GraphProgram(Generic[Output]):
    """A network captured as a CUDA graph. `network` maps planes of the device to planes of the device, by
    operations on the current stream only. It lives as long as the graph, which may run on its memory."""

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Planes],
        sink: Sink[Output],
        spec: EngineSpec,
        device: CudaDevice,
    ) -> None:
        with device_errors("while a lane was made"), torch.no_grad():
            self._host = planes(spec.width, spec.height, pinned=True)
            self._input = planes(spec.width, spec.height, device=device.torch_device)
            self._graph, self._result = _capture(lambda: network(*self._input), device)
        self._network = network
        self._sink = sink
        self.input = host_frame(*self._host)

    @property
    def output(self) -> Output:
        return self._sink.output

    def upload(self, frame: DeviceFrame | None) -> None:
        y, uv = self._input
        if frame is None:
            y.copy_(self._host[0], non_blocking=True)
            uv.copy_(self._host[1], non_blocking=True)
        else:
            read_surface(frame, y, uv)

    def compute(self) -> None:
        self._graph.replay()

    def download(self) -> None:
        self._sink.take(*self._result)


def host_lane(
    network: Callable[[Tensor, Tensor], Planes], spec: EngineSpec, device: CudaDevice
) -> DeviceLane[YuvFrame]:
    sink = HostSink(spec.scale * spec.width, spec.scale * spec.height)
    return DeviceLane(device, GraphProgram(network, sink, spec, device), spec)


def surface_lane(
    network: Callable[[Tensor, Tensor], Planes], spec: EngineSpec, device: CudaDevice
) -> DeviceLane[DeviceFrame]:
    pool = surface_pool(spec.scale * spec.width, spec.scale * spec.height, device.torch_device)
    return DeviceLane(device, GraphProgram(network, SurfaceSink(pool), spec, device), spec)


def planes(width: int, height: int, *, device: torch.device | None = None, pinned: bool = False) -> Planes:
    shapes = (1, 1, height, width), (1, 2, height // 2, width // 2)
    y, uv = (torch.zeros(shape, dtype=torch.uint8, device=device, pin_memory=pinned) for shape in shapes)
    return y, uv


def host_frame(y: Tensor, uv: Tensor) -> YuvFrame:
    """The same memory, for numpy."""
    return YuvFrame(y=y[0, 0].numpy(), u=uv[0, 0].numpy(), v=uv[0, 1].numpy())


def _capture(run: Callable[[], Planes], device: CudaDevice) -> tuple[torch.cuda.CUDAGraph, Planes]:
    stream = _capture_stream(device.torch_device).raw
    stream.wait_stream(torch.cuda.current_stream())  # on which weights may still be on their way
    with _capturing:
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads' lanes may go on working meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = run()
    return graph, result


@cache
def _capture_stream(device: torch.device) -> CudaStream:
    """The one stream that graphs are captured on. Of a priority that no lane's stream has: PyTorch hands out
    the streams of a priority in turns, and a lane that had this one would put its frame into the graph."""
    return CudaStream(device, priority=-1)


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
