"""NVDEC: a decoder whose pictures stay in the GPU's memory, as NV12 surfaces."""

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from engine.frame import DeviceFrame
from server.worker.process.cuda import decoder_caps, hwaccel

NVDEC = "nvdec"
# cudaVideoCodec, by libav's name of the codec; cudaVideoChromaFormat, by how chroma is subsampled.
_CODECS = {"mpeg2video": 1, "mpeg4": 2, "vc1": 3, "h264": 4, "mjpeg": 5, "hevc": 8}
_CODECS |= {"vp8": 9, "vp9": 10, "av1": 11}
_GREY, _420, _422, _444 = 0, 1, 2, 3
_MACROBLOCK_PIXELS = 256


def open_nvdec(software: VideoCodecContext) -> VideoCodecContext:
    """A decoder for the same stream as `software`, which nobody has used yet. Where the stream becomes one
    that NVDEC does not take, it decodes on the host. Raises LookupError with the reason why there is none.
    """
    codec = software.codec.canonical_name  # libav's own decoders have the acceleration, libdav1d has not
    _refuse_what_nvdec_lacks(codec, software)
    try:
        context = av.CodecContext.create(codec, "r", hwaccel=hwaccel(stays_on_gpu=True))
    except (av.FFmpegError, ValueError) as exc:
        raise LookupError(f"no NVDEC here: {getattr(exc, 'strerror', None) or exc}") from exc
    assert isinstance(context, VideoCodecContext)
    if not context.is_hwaccel:
        raise LookupError(f"NVDEC has no {codec}")
    context.extradata = software.extradata
    context.width, context.height = software.width, software.height
    context.thread_count = 1  # threads would only hold pictures back
    return context


def _refuse_what_nvdec_lacks(codec: str, software: VideoCodecContext) -> None:
    """libav's `av1` decodes by hardware only: with a GPU that has no AV1 it calls every packet corrupt."""
    number = _CODECS.get(codec)
    if number is None:
        raise LookupError(f"NVDEC has no {codec}")
    chroma, depth = _profile(software)
    caps = decoder_caps(number, chroma, depth)
    width, height = software.width, software.height
    if not caps.supported:
        subsampling = {_GREY: "4:0:0", _420: "4:2:0", _422: "4:2:2", _444: "4:4:4"}[chroma]
        raise LookupError(f"this GPU's NVDEC takes no {codec} of {subsampling} and {depth} bits")
    if width and height:  # else the first picture tells
        least, most = (caps.least_width, caps.least_height), (caps.most_width, caps.most_height)
        pixels = caps.most_macroblocks * _MACROBLOCK_PIXELS
        large = width > most[0] or height > most[1] or width * height > pixels
        if large or width < least[0] or height < least[1]:
            raise LookupError(
                f"this GPU's NVDEC takes {codec} from {least[0]}×{least[1]} to {most[0]}×{most[1]}, "
                f"and not {width}×{height}"
            )


def _profile(software: VideoCodecContext) -> tuple[int, int]:
    """Chroma format and bits of a sample; where the container does not say, those of nearly every stream."""
    form = software.format
    if form is None:
        return _420, 8
    components = form.components
    if len(components) < 3:
        return _GREY, components[0].bits
    width, height = 64, 64
    halved = form.chroma_width(width) < width, form.chroma_height(height) < height
    chroma = {(True, True): _420, (True, False): _422}.get(halved, _444)
    return chroma, components[0].bits


def surface_of(frame: VideoFrame) -> DeviceFrame | None:
    """The frame where it lies, if an engine can take it there: NV12 in the GPU's memory, its sides even."""
    if frame.width % 2 or frame.height % 2:
        return None
    sw_format = frame.sw_format
    if sw_format is None or sw_format.name != "nv12":
        return None
    y, uv = frame.planes
    # NVDEC writes on the default stream: libav lets nobody give a decoder another.
    return DeviceFrame(y=y, uv=uv, width=frame.width, height=frame.height)
