"""Bicubic on the CPU, as an engine: what upscales while the network isn't there."""

from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from engine.frame import Engine, EngineSpec, YuvFrame
from server.wire.messages import BICUBIC
from server.worker.process.picture import frame_from_planes, plane_view


def bicubic_engine(width: int, height: int, scale: int) -> Engine:
    """It takes and gives what a network of that scale does for LR frames of width × height."""
    return BicubicEngine(
        EngineSpec(
            model=BICUBIC,
            backend=BICUBIC,
            precision=None,
            colour="y",
            scale=scale,
            width=width,
            height=height,
            macs_per_frame=0,
            parity_db=None,
            checkpoint_sha256="",
            lanes=2,
        )
    )


class BicubicEngine:
    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def lane(self) -> "BicubicLane":
        return BicubicLane(self.spec)


class BicubicLane:
    """Computes in `wait`, some milliseconds on one core, while other threads go on."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._reformatter = VideoReformatter()
        self._input: VideoFrame | None = None

    def submit(self, frame: YuvFrame) -> None:
        size = (self._spec.height, self._spec.width)
        if frame.y.shape != size:
            raise ValueError(f"{frame.y.shape = } must be {size}, which this engine was loaded for")
        self._input = frame_from_planes(frame, self._spec.width, self._spec.height)

    def wait(self) -> YuvFrame:
        assert self._input is not None, "wait without submit"
        enlarged = self._reformatter.reformat(
            self._input,
            width=self._spec.width * self._spec.scale,
            height=self._spec.height * self._spec.scale,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            threads=1,
        )
        self._input = None
        y, u, v = (plane_view(enlarged, index) for index in range(3))
        return YuvFrame(y=y, u=u, v=v)
