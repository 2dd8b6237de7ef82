"""NV12 surfaces in a GPU's memory: those of a decoder are read, those for an encoder lent and taken back."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from engine.frame import DeviceFrame

# Rows begin at multiples of it, in bytes: NVENC refuses a pitch that is none of 4 (854 pixels are not), and
# reads whole lines of the GPU's memory at once.
_PITCH = 256


class _Memory:
    """One surface's buffer, (3h/2, pitch) uint8: chroma's rows follow luma's. NVENC is given luma's address
    and pitch alone, and reads chroma at luma + pitch × height."""

    def __init__(self, width: int, height: int, device: torch.device) -> None:
        pitch = -(-width // _PITCH) * _PITCH
        self.buffer = torch.zeros(height * 3 // 2, pitch, dtype=torch.uint8, device=device)
        self.written: torch.cuda.Event | None = None


class _Loan:
    """What a lent surface's tensors keep alive: once nobody has any of them, or a frame or encoder over
    them, the memory is the pool's again."""

    def __init__(self, pool: "SurfacePool", memory: _Memory) -> None:
        self._pool, self._memory = pool, memory
        buffer = memory.buffer
        interface = {
            "shape": tuple(buffer.shape),
            "typestr": "|u1",
            "data": (buffer.data_ptr(), False),
            "version": 3,
        }
        # The two protocols by which torch and numpy take foreign memory, and hold on to its owner.
        setattr(self, "__cuda_array_interface__" if buffer.is_cuda else "__array_interface__", interface)

    def tensor(self) -> Tensor:
        if self._memory.buffer.is_cuda:
            return torch.as_tensor(self, device=self._memory.buffer.device)
        return torch.from_numpy(np.asarray(self))

    def __del__(self) -> None:
        self._pool.take_back(self._memory)


class SurfacePool:
    """Surfaces of one size, for any thread. There are as many as were ever held at once: those in the lanes,
    those that wait for an encoder, in it, and shown last. Memory once lent stays where it is for as long as
    anybody has a surface of the pool: an encoder registers an address once and trusts it from then on."""

    def __init__(self, width: int, height: int, device: torch.device) -> None:
        self._width, self._height, self._device = width, height, device
        self._free: deque[_Memory] = deque()
        self.surfaces = 0  # that there are

    def lend(self, write: Callable[[Tensor, Tensor], None]) -> DeviceFrame:
        """Work: a surface that `write` fills, on the current stream; it is given y (h, w) and uv
        (h/2, w/2, 2), uint8."""
        memory = self._next()
        if memory.written is not None:  # by a lane, perhaps, that nobody has waited for
            torch.cuda.current_stream().wait_event(memory.written)
        nv12 = _Loan(self, memory).tensor()
        y = nv12[: self._height, : self._width]
        uv = nv12[self._height :, : self._width].view(self._height // 2, self._width // 2, 2)
        write(y, uv)
        if nv12.is_cuda:
            memory.written = memory.written or torch.cuda.Event()  # type: ignore[no-untyped-call]
            memory.written.record()
        return DeviceFrame(y=y, uv=uv, width=self._width, height=self._height)

    def take_back(self, memory: _Memory) -> None:
        self._free.append(memory)

    def _next(self) -> _Memory:
        try:
            return self._free.popleft()
        except IndexError:
            self.surfaces += 1
            return _Memory(self._width, self._height, self._device)


_pools: WeakValueDictionary[tuple[int, int, torch.device], SurfacePool] = WeakValueDictionary()
_pools_lock = threading.Lock()


def surface_pool(width: int, height: int, device: torch.device) -> SurfacePool:
    """The one of that size: an encoder that stays when an engine is replaced knows its surfaces already."""
    with _pools_lock:
        pool = _pools.get((width, height, device))
        if pool is None:
            pool = _pools[width, height, device] = SurfacePool(width, height, device)
        return pool


class SurfaceSink:
    """A surface of the pool for each frame.

    The graph does not write there by itself: its addresses are fixed, lanes are shared by streams, and how
    long a stream's encoder holds a surface is its own matter.
    """

    output: DeviceFrame

    def __init__(self, pool: SurfacePool) -> None:
        self._pool = pool

    def take(self, y: Tensor, uv: Tensor) -> None:
        self.output = self._pool.lend(partial(write_surface, y, uv))


def write_surface(y: Tensor, uv: Tensor, to_y: Tensor, to_uv: Tensor) -> None:
    """Copies planes into a surface's: y (1, 1, h, w) into (h, w), uv (1, 2, h/2, w/2) into (h/2, w/2, 2)."""
    to_y.copy_(y[0, 0], non_blocking=True)
    to_uv.permute(2, 0, 1).copy_(uv[0], non_blocking=True)


def read_surface(frame: DeviceFrame, y: Tensor, uv: Tensor) -> None:
    """Copies NV12 into planes: U and V, neighbours there, lie a plane apart here."""
    # With stream=None the producer does not synchronise; the caller has (libav knows no other way).
    source_y, source_uv = (from_dlpack(p.__dlpack__(stream=None)) for p in (frame.y, frame.uv))
    shapes = (frame.height, frame.width), (frame.height // 2, frame.width // 2, 2)
    for name, plane, shape in zip(("y", "uv"), (source_y, source_uv), shapes, strict=True):
        if tuple(plane.shape) != shape or plane.dtype != torch.uint8:
            raise ValueError(
                f"surface plane {name} is {plane.dtype} {tuple(plane.shape)}, must be uint8 {shape}"
            )
    y[0, 0].copy_(source_y, non_blocking=True)
    uv[0].copy_(source_uv.permute(2, 0, 1), non_blocking=True)
