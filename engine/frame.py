"""What travels through an engine: one 8-bit YUV 4:2:0 frame, and the seams `Engine` and `Lane`."""

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
