"""CUDA by PyTorch behind the seams of `engine.backends.cuda.lanes`: streams, events, pinned memory, graphs.

A lane's program is a CUDA graph over memory that stays where it is, so that a frame costs the host a few
calls, and nothing is allocated on the frame path once there are surfaces enough.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engine.backends.cuda.lanes import DeviceLane, FrameLane, Output_co, Work, check_size
from engine.backends.cuda.surfaces import SurfaceSink, read_surface, surface_pool
from engine.errors import BackendUnavailable, DeviceFailed
from engine.frame import DeviceFrame, EngineSpec, YuvFrame, copy_planes

Planes = tuple[Tensor, Tensor]  # y (B, 1, h, w) and uv (B, 2, h/2, w/2), uint8
Network = Callable[[Tensor, Tensor], Planes]
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


class CudaSlot(Generic[Output]):
    """One frame on its way: pinned planes or a surface of another's before, a sink behind."""

    def __init__(self, spec: EngineSpec, device: CudaDevice, sink: Sink[Output]) -> None:
        self._pinned = planes(spec.width, spec.height, pinned=True)
        self._input = host_frame(*self._pinned)
        self._lent: DeviceFrame | None = None
        self._written = device.event()
        self._spec = spec
        self._device = device
        self._sink = sink

    @property
    def written(self) -> CudaEvent | None:
        return None if self._lent is None else self._written

    def put(self, frame: YuvFrame | DeviceFrame) -> None:
        check_size(frame, self._spec)
        if isinstance(frame, DeviceFrame):
            self._device.producer(frame.stream).record(self._written)
            self._lent = frame
        else:
            copy_planes(frame, self._input)
            self._lent = None

    def take(self) -> Output:
        self._lent = None
        return self._sink.output

    def upload(self, y: Tensor, uv: Tensor) -> None:
        """Work: the frame to planes of the device."""
        if self._lent is None:
            y.copy_(self._pinned[0], non_blocking=True)
            uv.copy_(self._pinned[1], non_blocking=True)
        else:
            read_surface(self._lent, y, uv)

    def download(self, y: Tensor, uv: Tensor) -> None:
        """Work: planes of the device to the sink."""
        self._sink.take(y, uv)


class CudaHostSlot(CudaSlot[YuvFrame]):
    def __init__(self, spec: EngineSpec, device: CudaDevice) -> None:
        """Raises DeviceFailed."""
        with device_errors("while a slot was made"):
            super().__init__(spec, device, HostSink(spec.scale * spec.width, spec.scale * spec.height))

    def take_into(self, planes: YuvFrame) -> None:
        copy_planes(self.take(), planes)


class CudaSurfaceSlot(CudaSlot[DeviceFrame]):
    def __init__(self, spec: EngineSpec, device: CudaDevice) -> None:
        """Raises DeviceFailed."""
        pool = surface_pool(spec.scale * spec.width, spec.scale * spec.height, device.torch_device)
        with device_errors("while a slot was made"):
            super().__init__(spec, device, SurfaceSink(pool))


class GraphProgram:
    """A network captured as CUDA graphs, one for each size of a batch; a batch between two sizes takes the
    larger one's, and what the last one left behind fills it up. The graphs share their memory, as only one of
    them runs at a time. `network(size)` is what maps planes of the device, always the same, to planes of the
    device, by operations on the current stream only. It lives as long as its graph, which may run on its
    memory."""

    def __init__(
        self,
        network: Callable[[int], Network],
        spec: EngineSpec,
        device: CudaDevice,
        sizes: Sequence[int] = (1,),
    ) -> None:
        """Raises DeviceFailed."""
        self._graphs: dict[int, _Graph] = {}
        with device_errors("while a lane was made"), torch.no_grad():
            y, uv = self._input = planes(
                spec.width, spec.height, frames=max(sizes), device=device.torch_device
            )
            pool = None
            for size in sorted(sizes, reverse=True):  # so that the smaller ones find room in its memory
                graph = _capture(network(size), (y[:size], uv[:size]), device, pool)
                pool = graph.graph.pool()
                self._graphs[size] = graph

    def upload(self, slots: Sequence[CudaSlot[Any]]) -> None:
        for slot, y, uv in zip(slots, *_frames(self._input), strict=False):
            slot.upload(y, uv)

    def compute(self, count: int) -> None:
        self._of(count).graph.replay()

    def download(self, slots: Sequence[CudaSlot[Any]]) -> None:
        for slot, y, uv in zip(slots, *_frames(self._of(len(slots)).result), strict=False):
            slot.download(y, uv)

    def _of(self, count: int) -> "_Graph":
        return self._graphs[min(size for size in self._graphs if size >= count)]


def host_lane(network: Callable[[int], Network], spec: EngineSpec, device: CudaDevice) -> FrameLane[YuvFrame]:
    return FrameLane(DeviceLane(device, GraphProgram(network, spec, device)), CudaHostSlot(spec, device))


def surface_lane(
    network: Callable[[int], Network], spec: EngineSpec, device: CudaDevice
) -> FrameLane[DeviceFrame]:
    return FrameLane(DeviceLane(device, GraphProgram(network, spec, device)), CudaSurfaceSlot(spec, device))


def batch_lane(
    network: Callable[[int], Network], spec: EngineSpec, device: CudaDevice, sizes: Sequence[int]
) -> DeviceLane[CudaSlot[Any]]:
    return DeviceLane(device, GraphProgram(network, spec, device, sizes))


def planes(
    width: int,
    height: int,
    *,
    frames: int = 1,
    device: torch.device | None = None,
    pinned: bool = False,
) -> Planes:
    shapes = (frames, 1, height, width), (frames, 2, height // 2, width // 2)
    y, uv = (torch.zeros(shape, dtype=torch.uint8, device=device, pin_memory=pinned) for shape in shapes)
    return y, uv


def host_frame(y: Tensor, uv: Tensor) -> YuvFrame:
    """The same memory, for numpy."""
    return YuvFrame(y=y[0, 0].numpy(), u=uv[0, 0].numpy(), v=uv[0, 1].numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    result: Planes
    network: Network


def _capture(network: Network, inputs: Planes, device: CudaDevice, pool: Any) -> _Graph:
    stream = _capture_stream(device.torch_device).raw
    stream.wait_stream(torch.cuda.current_stream())  # on which weights may still be on their way
    with _capturing:
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                network(*inputs)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads' lanes may go on working meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = network(*inputs)
    return _Graph(graph=graph, result=result, network=network)


def _frames(batch: Planes) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Each frame's own planes."""
    y, uv = (torch.split(part, 1) for part in batch)
    return y, uv


@cache
def _capture_stream(device: torch.device) -> CudaStream:
    """The one stream that graphs are captured on. Of a priority that no lane's stream has: PyTorch hands out
    the streams of a priority in turns, and a lane that had this one would put its frame into the graph."""
    return CudaStream(device, priority=-1)


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
