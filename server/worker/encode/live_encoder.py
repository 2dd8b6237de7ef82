"""The encoder of one rendition, whatever comes: another format, and an NVENC that refuses or breaks."""

from dataclasses import replace

import av

from server.wire.logs import Log
from server.wire.messages import Rendition
from server.worker.encode.h264 import (
    ENCODER_ERRORS,
    NVENC,
    ON_GPU,
    X264,
    Encoded,
    EncoderFormat,
    H264Encoder,
    reason_of,
)
from server.worker.encode.vp8 import VPX, Vp8Encoder


class LiveEncoder:
    """`request_keyframe` belongs to any thread, the rest to one.

    What NVENC will not take, such as a width above 4096, one session more than the GPU has, or a picture that
    it breaks at, x264 takes, from that frame on and up to the next format. Trying NVENC sooner would cost the
    viewers a key frame each time, and what it refused mostly lies in the format.
    """

    def __init__(self, rendition: Rendition, log: Log) -> None:
        self._rendition = rendition
        self._log = log
        self._wanted: EncoderFormat | None = None
        self._encoder: H264Encoder | Vp8Encoder | None = None

    @property
    def format(self) -> EncoderFormat:
        """Of the encoder at work."""
        assert self._encoder is not None, "nothing was encoded yet"
        return self._encoder.format

    def is_of(self, wanted: EncoderFormat) -> bool:
        """Whether a frame of that format goes on where the last one was."""
        return self._encoder is not None and wanted == self._wanted

    def request_keyframe(self) -> None:
        encoder = self._encoder
        if encoder is not None:  # else the first frame is one
            encoder.request_keyframe()

    def encode(self, frame: av.VideoFrame, pts: int, wanted: EncoderFormat) -> list[Encoded]:
        """As `H264Encoder.encode`, by an encoder of that format; a new one starts with an IDR."""
        if wanted != self._wanted:
            self.close()
        try:
            if self._encoder is None:
                self._encoder = _open(wanted, frame)
                self._wanted = wanted
            return self._encoder.encode(self._readable(frame), pts)
        except ENCODER_ERRORS as exc:
            if (self._encoder.format if self._encoder else wanted).encoder != NVENC:
                raise
            self._log.warning(
                "NVENC refused, libx264 encodes",
                rendition=self._rendition,
                size=f"{wanted.width}x{wanted.height}",
                reason=reason_of(exc),
            )
        self.close()
        self._encoder = H264Encoder(replace(wanted, encoder=X264))
        self._wanted = wanted
        return self._encoder.encode(self._readable(frame), pts)

    def close(self) -> None:
        encoder, self._encoder, self._wanted = self._encoder, None, None
        if encoder is not None:
            encoder.close()

    def _readable(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Where the encoder can read it: x264 does not reach into the GPU's memory."""
        if self.format.encoder == NVENC or frame.format.name != ON_GPU:
            return frame
        return frame.reformat(format="yuv420p", threads=1)


def _open(wanted: EncoderFormat, first: av.VideoFrame) -> H264Encoder | Vp8Encoder:
    if wanted.encoder == VPX:
        return Vp8Encoder(wanted)
    return H264Encoder(wanted, surfaces=first.format.name == ON_GPU and wanted.encoder == NVENC)
