"""NVDEC: a decoder whose pictures stay in the GPU's memory, as NV12 surfaces."""

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from engine.frame import DeviceFrame

NVDEC = "nvdec"
# Pictures that mailboxes, lanes, gate and slate hold at once; without these the decoder would run out of
# surfaces.
_EXTRA_SURFACES = 14


def open_nvdec(software: VideoCodecContext) -> VideoCodecContext:
    """A decoder for the same stream as `software`, which nobody has used yet. What NVDEC does not take, it
    decodes on the host. Raises LookupError with the reason why there is none.
    """
    codec = software.codec.canonical_name  # libav's own decoders have the acceleration, libdav1d has not
    try:
        hwaccel = HWAccel("cuda", allow_software_fallback=True, is_hw_owned=True)
        context = av.CodecContext.create(codec, "r", hwaccel=hwaccel)
    except (av.FFmpegError, ValueError) as exc:
        raise LookupError(f"no NVDEC here: {getattr(exc, 'strerror', None) or exc}") from exc
    assert isinstance(context, VideoCodecContext)
    if not context.is_hwaccel:
        raise LookupError(f"NVDEC has no {codec}")
    context.extradata = software.extradata
    context.width, context.height = software.width, software.height
    context.thread_count = 1  # threads would only hold pictures back
    context.options = {"extra_hw_frames": str(_EXTRA_SURFACES)}
    return context


def surface_of(frame: VideoFrame) -> DeviceFrame | None:
    """The frame where it lies, if an engine can take it there: NV12 in the GPU's memory, its sides even."""
    if frame.width % 2 or frame.height % 2:
        return None
    sw_format = frame.sw_format
    if sw_format is None or sw_format.name != "nv12":
        return None
    y, uv = frame.planes
    # NVDEC writes on the default stream.
    return DeviceFrame(y=y, uv=uv, width=frame.width, height=frame.height)
