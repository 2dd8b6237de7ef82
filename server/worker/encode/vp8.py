"""VP8 by libvpx, for viewers without H.264: a frame in is a frame out, and key frames come on demand."""

import threading
from contextlib import suppress
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from engine.frame import USUAL_FPS
from server.wire.messages import VIDEO_CLOCK_HZ
from server.worker.encode.h264 import Encoded, EncoderFormat, encode_at

VPX = "libvpx"
_NEVER = str(1 << 20)  # frames


class Vp8Encoder:
    """`encode` belongs to one thread; `request_keyframe` to any. Takes yuv420p on the host."""

    def __init__(self, form: EncoderFormat) -> None:
        """Raises av.FFmpegError, as `encode` does."""
        self.format = form
        self._requested = threading.Event()
        self._requested.set()
        context = av.CodecContext.create(VPX, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = form.width, form.height, "yuv420p"
        context.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        context.framerate = Fraction(form.fps or USUAL_FPS).limit_denominator(1001)
        context.options = _options(form)
        context.open()
        self._context = context

    def request_keyframe(self) -> None:
        """The next frame encoded will be one."""
        self._requested.set()

    def encode(self, frame: av.VideoFrame, pts: int) -> list[Encoded]:
        """`pts` in 90 kHz ticks, above every one before."""
        if self._requested.is_set():
            self._requested.clear()
            frame.pict_type = PictureType.I
        else:
            frame.pict_type = PictureType.NONE
        return encode_at(self._context, frame, pts)

    def close(self) -> None:
        with suppress(av.FFmpegError):
            self._context.encode(None)
        del self._context


def _options(form: EncoderFormat) -> dict[str, str]:
    """The speed is one that takes what x264's superfast does; a quantiser below the least brings nothing that
    is seen."""
    return {
        "deadline": "realtime",
        "cpu-used": "-8",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "b": str(form.bitrate_bps),
        "maxrate": str(form.bitrate_bps),
        "bufsize": str(form.bitrate_bps // 2),
        "max-intra-rate": "600",  # of a frame's share of the bitrate, in percent
        "qmin": "12",
        "qmax": "56",
        "drop-threshold": "0",  # every rendition has the same pictures
        "threads": "1",
        "g": _NEVER,
        "keyint_min": _NEVER,  # as large: none comes but when it is asked for
    }
