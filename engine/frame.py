"""What travels through an engine: one 8-bit YUV 4:2:0 frame, and the seams `Engine` and `Lane`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.config import AwsrnConfig, ColourKind
from engine.performance import Performance

Plane = NDArray[np.uint8]
Precision = Literal["float32", "bf16", "fp16", "int8"]
Matrix = Literal["bt601", "bt709"]
USUAL_FPS = 25  # where a source does not say how many frames it sends a second
_HD_LINES = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """How YUV code values mean RGB: the stream's matrix and range. Only `rgb` models look at it."""

    matrix: Matrix = "bt709"
    full_range: bool = False


def usual_matrix(height: int) -> Matrix:
    """Matrix of a picture of so many lines that names none: BT.709 from 720 lines, as players take it."""
    return "bt709" if height >= _HD_LINES else "bt601"


@dataclass(frozen=True, slots=True, kw_only=True)
class YuvFrame:
    """Planes of one frame, uint8, C-contiguous: y (h, w), u and v (h/2, w/2); h and w are even."""

    y: Plane
    u: Plane
    v: Plane

    def __post_init__(self) -> None:
        height, width = self.y.shape
        if height % 2 or width % 2:
            raise ValueError(f"{self.y.shape = } must have even sides")
        for name, plane in (("u", self.u), ("v", self.v)):
            if plane.shape != (height // 2, width // 2):
                raise ValueError(f"{name}.shape = {plane.shape} must be half of {self.y.shape = }")
        for name, plane in (("y", self.y), ("u", self.u), ("v", self.v)):
            if plane.dtype != np.uint8:
                raise ValueError(f"{name}.dtype = {plane.dtype} must be uint8")


def copy_planes(source: YuvFrame, target: YuvFrame) -> None:
    """Fills the target with the source's top left. Rows of either may lie apart."""
    for to, planes in ((target.y, source.y), (target.u, source.u), (target.v, source.v)):
        np.copyto(to, planes[: to.shape[0], : to.shape[1]])


class DlpackArray(Protocol):
    """An array that another library may use in place (DLPack, as in the Python array API standard)."""

    def __dlpack__(self, *, stream: int | None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFrame:
    """One frame in a GPU's memory as NV12, which is what NVDEC writes and NVENC reads.

    y: (height, width) uint8; uv: (height/2, width/2, 2) uint8, U before V. Samples of a row are adjacent,
    rows may lie apart. Width and height, in pixels, are even. `stream` is the handle of the CUDA stream on
    which the planes are written, 0 for the default one: who reads them lets its own stream wait for what was
    put there before it was given the frame. Their memory does not change until the lane that took them was
    waited for. A frame that a lane has given out is complete, and belongs to its receiver; its chroma rows
    follow those of luma in one buffer, at the same pitch, as NVENC reads them.
    """

    y: DlpackArray
    uv: DlpackArray
    width: int
    height: int
    stream: int = 0

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2:
            raise ValueError(f"{self.width = }, {self.height = } must be even")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What a loaded engine is. Sizes are of the LR frame, in pixels; precision is None where no network
    computes; parity is PSNR in dB against the float32 reference, None for the reference itself and where
    nothing was built to measure; `lanes` is how many frames in flight it was loaded for, or does best with
    where that was left to it, and `surface_lanes` the same of frames that lie on the GPU; `performance` is
    what was measured of it when it was built for this GPU."""

    model: str
    backend: str
    precision: Precision | None
    colour: ColourKind
    scale: int
    width: int
    height: int
    macs_per_frame: int
    parity_db: float | None
    checkpoint_sha256: str
    lanes: int = 1
    surface_lanes: int = 1
    performance: Performance | None = None


def network_spec(
    config: AwsrnConfig,
    *,
    model: str,
    backend: str,
    precision: Precision,
    checkpoint_sha256: str,
    width: int,
    height: int,
    parity_db: float | None = None,
) -> EngineSpec:
    """The spec of an engine that runs a network of that configuration."""
    return EngineSpec(
        model=model,
        backend=backend,
        precision=precision,
        colour=config.colour,
        scale=config.scale,
        width=width,
        height=height,
        macs_per_frame=config.folded_macs_per_lr_pixel * width * height,
        parity_db=parity_db,
        checkpoint_sha256=checkpoint_sha256,
    )


def empty_output(spec: EngineSpec) -> YuvFrame:
    """Planes for what an engine gives out, not yet written."""
    height, width = spec.scale * spec.height, spec.scale * spec.width
    half = height // 2, width // 2
    return YuvFrame(
        y=np.empty((height, width), np.uint8), u=np.empty(half, np.uint8), v=np.empty(half, np.uint8)
    )


class Lane(Protocol):
    """One frame in flight: its own buffers, its own infer request or CUDA stream.

    `submit` returns at once and copies what it needs of the frame; `wait` blocks until that frame is done.
    The planes `wait` returns are the lane's own and stay valid until its next `submit`.
    """

    def submit(self, frame: YuvFrame) -> None: ...

    def wait(self) -> YuvFrame: ...


@runtime_checkable
class FillingLane(Lane, Protocol):
    """One that can also write its output where it is wanted, which saves whoever wants it there a copy."""

    def wait_into(self, planes: YuvFrame) -> None:
        """Blocks as `wait` does, and fills the planes with the output's top left. Rows may lie apart."""
        ...


class Engine(Protocol):
    """A compiled network for frames of one size."""

    @property
    def spec(self) -> EngineSpec: ...

    def lane(self) -> Lane: ...


class DownloadLane(Protocol):
    """A lane whose frames come from either side and end on the host."""

    def submit(self, frame: YuvFrame | DeviceFrame) -> None: ...

    def wait(self) -> YuvFrame: ...


class GpuLane(Protocol):
    """A lane whose frames come from either side and stay on the GPU. What `wait` returns is the caller's."""

    def submit(self, frame: YuvFrame | DeviceFrame) -> None: ...

    def wait(self) -> DeviceFrame: ...


@runtime_checkable
class GpuEngine(Engine, Protocol):
    """One whose lanes take frames that lie on the GPU as well."""

    def lane(self) -> DownloadLane: ...

    def surface_lane(self) -> GpuLane: ...


class Slot(Protocol):
    """Memory of one frame's own on both sides of an engine, for one frame at a time."""

    def put(self, frame: YuvFrame | DeviceFrame) -> None:
        """Copies what is needed of a frame on the host; one on the GPU is only lent until `take`. Raises
        ValueError where the engine takes no such frame."""
        ...


class HostSlot(Slot, Protocol):
    """One whose output lies on the host."""

    def take_into(self, planes: YuvFrame) -> None:
        """Fills the planes with the output's top left, once the batch is done. Rows may lie apart."""
        ...


class SurfaceSlot(Slot, Protocol):
    """One whose output stays on the GPU."""

    def take(self) -> DeviceFrame:
        """The output, once the batch is done; the caller's own."""
        ...


class BatchLane(Protocol):
    """One batch in flight: frames that are computed together, at most as many as the lane was made for."""

    def submit(self, slots: Sequence[Any]) -> None:
        """Returns at once. The slots are the engine's own, each with a frame in it."""
        ...

    def wait(self) -> None:
        """Blocks until every slot of the batch has its output."""
        ...


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """One that takes several frames at once. `batches` are the numbers that it is compiled for, ascending
    from 1; a batch between two of them costs as much as the larger."""

    @property
    def batches(self) -> tuple[int, ...]: ...

    def slot(self) -> HostSlot: ...

    def batch_lane(self, most: int) -> BatchLane:
        """A lane for at most so many frames, one of `batches`."""
        ...


@runtime_checkable
class GpuBatchEngine(BatchEngine, Protocol):
    """One whose frames may lie on the GPU on either side."""

    def surface_slot(self) -> SurfaceSlot: ...
