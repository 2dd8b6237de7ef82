"""One H.264 encode for all live viewers: a frame in is a packet out, and keyframes come on demand."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from engine.frame import USUAL_FPS
from server.wire.logs import Log
from server.wire.messages import DEFAULT_KEYFRAME_INTERVAL_S, VIDEO_CLOCK_HZ
from server.worker.process.cuda import NoDriver, hwaccel
from server.worker.process.picture import ColourTags

NVENC, X264 = "h264_nvenc", "libx264"
ON_GPU = "cuda"  # libav's name of the pixel format of surfaces in the GPU's memory
_BITS_PER_PIXEL = 0.15
_LEAST_BPS, _MOST_BPS = 300_000, 20_000_000
# A key frame takes at most as long to send as so many frames do; by one it would be no better than those
# beside it, and every key frame would be seen.
_NVENC_VBV_FRAMES = 2
_NVENC_LEAST_QP = "20"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFormat:
    """What an encoder is opened with."""

    encoder: str  # "libx264", "h264_nvenc" or "libvpx"
    preset: str  # libx264's
    width: int
    height: int
    fps: float  # nominal; 0 where nobody knows
    bitrate_bps: int
    keyframe_interval_s: float
    sample_aspect_ratio: tuple[int, int]
    tags: ColourTags


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One access unit in Annex B, or one VP8 frame."""

    pts: int
    keyframe: bool
    payload: bytes


def usual_bitrate_bps(width: int, height: int, fps: float) -> int:
    """The cap where nobody chose one."""
    return round(min(max(width * height * (fps or USUAL_FPS) * _BITS_PER_PIXEL, _LEAST_BPS), _MOST_BPS))


def choose_encoder(wanted: str, preset: str, log: Log) -> str:
    """'auto' becomes NVENC where it opens, else libx264. Raises ValueError for an encoder that can't be."""
    if wanted not in ("auto", X264, NVENC):
        raise ValueError(f"encoder={wanted!r} must be auto, libx264 or h264_nvenc")
    if wanted != X264:
        reason = encoder_problem(NVENC, preset)
        if not reason:
            log.info("encoder chosen", encoder=NVENC)
            return NVENC
        if wanted == NVENC:
            raise ValueError(f"encoder='h264_nvenc' does not open on this machine: {reason}")
        log.info("encoder chosen", encoder=X264, reason=f"no NVENC: {reason}")
    reason = encoder_problem(X264, preset)
    if reason:
        raise ValueError(f"preset={preset!r} must be one of x264's, such as superfast ({reason})")
    return X264


def encoder_problem(encoder: str, preset: str) -> str:
    """Why the encoder can't be used on this machine; "" where it opens. Only trying tells: some GPUs have no
    NVENC, and some drivers none for us. What NVENC says of another size, or of one session more, is heard by
    `LiveEncoder`."""
    probe = EncoderFormat(
        encoder=encoder,
        preset=preset,
        width=256,
        height=144,
        fps=USUAL_FPS,
        bitrate_bps=500_000,
        keyframe_interval_s=DEFAULT_KEYFRAME_INTERVAL_S,
        sample_aspect_ratio=(1, 1),
        tags=ColourTags(range=0, matrix=2, primaries=2, transfer=2),
    )
    try:
        H264Encoder(probe).close()
    except ENCODER_ERRORS as exc:
        return reason_of(exc)
    return ""


# What an encoder that does not open, or breaks, says: libav's word, or that there is no driver.
ENCODER_ERRORS = (av.FFmpegError, NoDriver)


def reason_of(exc: BaseException) -> str:
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__


def encode_at(context: VideoCodecContext, frame: av.VideoFrame, pts: int) -> list[Encoded]:
    """What the encoder gives for the frame, at `pts` in 90 kHz ticks."""
    frame.pts = pts
    frame.time_base = Fraction(1, VIDEO_CLOCK_HZ)
    return [
        Encoded(pts=packet.pts or 0, keyframe=packet.is_keyframe, payload=bytes(packet))
        for packet in context.encode(frame)
    ]


class H264Encoder:
    """`encode` belongs to one thread; `request_keyframe` to any. Takes yuv420p on the host and, by NVENC,
    surfaces too, in any order."""

    def __init__(self, form: EncoderFormat, *, surfaces: bool = False) -> None:
        """`surfaces`: the first frame is one; the encoder opens with it, in its context and on its stream.
        Raises one of ENCODER_ERRORS, as `encode` does."""
        self.format = form
        self._context = _open(form, surfaces=surfaces)
        self._interval = round(form.keyframe_interval_s * VIDEO_CLOCK_HZ)
        self._next_keyframe: int | None = None
        self._requested = threading.Event()
        self._last: av.VideoFrame | None = None

    def request_keyframe(self) -> None:
        """The next frame encoded will be an IDR."""
        self._requested.set()

    def encode(self, frame: av.VideoFrame, pts: int) -> list[Encoded]:
        """`pts` in 90 kHz ticks, above every one before."""
        due = self._next_keyframe is None or pts >= self._next_keyframe
        if due or self._requested.is_set():
            self._requested.clear()
            self._next_keyframe = pts + self._interval
            frame.pict_type = PictureType.I
        else:
            frame.pict_type = PictureType.NONE  # a decoded frame carries the source's
        self._last = frame  # while it is held, the GPU's memory that NVENC has registered stays
        return encode_at(self._context, frame, pts)

    def close(self) -> None:
        """Lets the encoder's memory and threads go now, not when the collector comes by."""
        if self._context.is_open:
            with suppress(av.FFmpegError):  # a broken one can't be emptied
                self._context.encode(None)
        del self._context


def _open(form: EncoderFormat, *, surfaces: bool) -> VideoCodecContext:
    # NVENC that is given no context opens one for itself, which takes turns with that of the engines.
    shared = hwaccel() if form.encoder == NVENC and not surfaces else None
    context = av.CodecContext.create(form.encoder, "w", hwaccel=shared)
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = form.width, form.height
    context.pix_fmt = ON_GPU if surfaces else "nv12" if shared else "yuv420p"
    context.time_base = Fraction(1, VIDEO_CLOCK_HZ)
    context.framerate = Fraction(form.fps or USUAL_FPS).limit_denominator(1001)
    context.sample_aspect_ratio = Fraction(*form.sample_aspect_ratio)
    context.color_range, context.colorspace = form.tags.range, form.tags.matrix
    context.color_primaries, context.color_trc = form.tags.primaries, form.tags.transfer
    context.max_b_frames = 0
    # Without a global header, SPS and PPS go in front of every IDR.
    context.options = _nvenc_options(form) if form.encoder == NVENC else _x264_options(form)
    if not surfaces:  # which GPU memory it is to read, its first frame tells; then it opens
        context.open()
    return context


def _nvenc_options(form: EncoderFormat) -> dict[str, str]:
    """With a quality to aim at (`cq`) libav leaves NVENC without a VBV, and a key frame is as large as it
    likes. So the bitrate is what is aimed at, and a quantiser below which nobody sees more is not gone."""
    frame_bits = form.bitrate_bps / (form.fps or USUAL_FPS)
    return {
        "preset": "p3",
        "tune": "ull",
        "rc": "vbr",
        "b": str(form.bitrate_bps),
        "maxrate": str(form.bitrate_bps),
        "bufsize": str(round(_NVENC_VBV_FRAMES * frame_bits)),
        "qmin": _NVENC_LEAST_QP,
        "spatial-aq": "1",
        "forced-idr": "1",
        "zerolatency": "1",
        "delay": "0",
        "g": str(1 << 20),
    }


def _x264_options(form: EncoderFormat) -> dict[str, str]:
    return {
        "preset": form.preset,
        "tune": "zerolatency",
        "crf": "22",
        "maxrate": str(form.bitrate_bps),
        "bufsize": str(form.bitrate_bps // 2),
        "forced-idr": "1",
        "threads": "1",
        # Keyframes come when they are asked for or due, none between: a cut is no reason for a burst.
        "x264-params": "keyint=infinite:scenecut=0:repeat-headers=1:annexb=1",
    }
