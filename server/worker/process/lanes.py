"""What the ring drives: lanes that take a picture and give the frame to encode, on the host or on the GPU."""

from typing import Protocol

from av.video.frame import CudaContext, VideoFrame

from engine.frame import DeviceFrame, Engine, FillingLane, GpuEngine, GpuLane, Lane
from server.worker.process.cuda import encoder_context, use_primary_context
from server.worker.process.picture import Picture, PictureFormat, frame_from_planes, host_planes, new_frame

_DLPACK_CUDA = 2  # its name of a device type


class PictureLane(Protocol):
    def submit(self, picture: Picture) -> None: ...

    def wait(self) -> VideoFrame:
        """Cropped to the largest even size within scale × the picture's; the caller's own."""
        ...


def picture_lane(engine: Engine, *, on_gpu: bool) -> PictureLane:
    """A lane for pictures of an engine; for those that lie on the GPU, one whose frames stay there, where the
    engine can do that."""
    if on_gpu and isinstance(engine, GpuEngine):
        return SurfaceLane(engine.surface_lane())
    return HostLane(engine.lane(), engine.spec.scale)


def lane_count(engine: Engine, *, on_gpu: bool) -> int:
    """How many of those `picture_lane`s suit the engine."""
    return engine.spec.surface_lanes if on_gpu and isinstance(engine, GpuEngine) else engine.spec.lanes


class HostLane:
    """Pictures of the decoder in, frames for the encoder out, each plane copied once either way where the
    engine's lane fills the frame itself; luma of an odd side once more, as it is padded."""

    def __init__(self, lane: Lane, scale: int) -> None:
        self._lane = lane
        self._scale = scale
        self._format: PictureFormat | None = None

    def submit(self, picture: Picture) -> None:
        self._lane.submit(host_planes(picture))
        self._format = picture.format

    def wait(self) -> VideoFrame:
        assert self._format is not None, "wait without submit"
        size = self._format.scaled_size(self._scale)
        if isinstance(self._lane, FillingLane):
            frame, planes = new_frame(*size)
            self._lane.wait_into(planes)
            return frame
        return frame_from_planes(self._lane.wait(), *size)


class SurfaceLane:
    """NV12 surfaces in and out. Only pictures of even size come as such: nothing is left to crop."""

    def __init__(self, lane: GpuLane) -> None:
        self._lane = lane
        self._context: CudaContext | None = None

    def submit(self, picture: Picture) -> None:
        assert isinstance(picture.planes, DeviceFrame), "the ring has other lanes for pictures on the host"
        self._lane.submit(picture.planes)

    def wait(self) -> VideoFrame:
        surface = self._lane.wait()
        if surface.y.__dlpack_device__()[0] == _DLPACK_CUDA:
            use_primary_context()
            self._context = self._context or encoder_context()
        planes = (surface.y, surface.uv)
        return VideoFrame.from_dlpack(planes, format="nv12", cuda_context=self._context)
