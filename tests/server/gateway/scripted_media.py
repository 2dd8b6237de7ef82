"""Pictures and sound as a worker encodes them: a moving pattern, and silence."""

from fractions import Fraction

import av
import numpy as np
from msgspec.structs import replace

from loadtest.numbered_source import draw
from server.wire.messages import (
    AudioFormat,
    EngineFormat,
    Opened,
    OutputFormat,
    RenditionFormat,
    SourceFormat,
)

FPS = 25
FRAME_TICKS = 90_000 // FPS


class Encoder:
    """x264 as the worker uses it: no B-frames, no delay, SPS and PPS in front of every IDR."""

    def __init__(
        self,
        width: int,
        height: int,
        gop_s: float,
        noise_bps: int = 0,
        *,
        numbered: bool = False,
        vp8: bool = False,
    ) -> None:
        """`numbered`: each half of a picture, left and right, carries the picture's number."""
        self.noise = np.random.default_rng(1) if noise_bps else None
        self.codec = av.CodecContext.create("libvpx" if vp8 else "libx264", "w")
        self.codec.width, self.codec.height = width, height
        self.codec.pix_fmt = "yuv420p"
        self.codec.thread_count = 1
        self.codec.time_base = Fraction(1, 90_000)
        self.codec.framerate = Fraction(FPS)
        self.codec.gop_size = round(gop_s * FPS)
        if vp8:
            self.codec.options = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0"}
        else:
            self.codec.options = {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1"}
        if noise_bps:
            self.codec.bit_rate = noise_bps
            self.codec.options |= {"maxrate": str(noise_bps), "bufsize": str(noise_bps // 2)}
        self.size = width, height
        self.numbered = numbered
        self.force = False

    def encode(self, number: int, pts: int) -> tuple[bytes, bool]:
        width, height = self.size
        if self.numbered:
            luma = draw(number % 256 * 257, width, height)
        else:
            luma = (np.arange(width)[None, :] * 2 + np.arange(height)[:, None] + number * 4) % 200 + 20
        if self.noise is not None:
            luma = luma + self.noise.integers(-20, 20, luma.shape)
        frame = av.VideoFrame.from_ndarray(
            np.concatenate(
                [luma.astype(np.uint8).ravel(), np.full(width * height // 2, 128, np.uint8)]
            ).reshape(height * 3 // 2, width),
            format="yuv420p",
        )
        frame.pts = pts
        frame.time_base = self.codec.time_base
        frame.pict_type = av.video.frame.PictureType.I if self.force else av.video.frame.PictureType.NONE
        self.force = False
        (packet,) = self.codec.encode(frame)
        return bytes(packet), packet.is_keyframe


class Sound:
    """Silence, in 20 ms Opus packets and 1024-sample AAC access units."""

    def __init__(self) -> None:
        self.opus = self._codec("libopus", "s16", 960)
        self.aac = self._codec("aac", "fltp", 1024)

    @staticmethod
    def _codec(name: str, sample_format: str, samples: int):
        codec = av.CodecContext.create(name, "w")
        codec.sample_rate, codec.layout, codec.format = 48_000, "stereo", sample_format
        codec.open()
        return codec, sample_format, samples

    @property
    def format(self) -> AudioFormat:
        return AudioFormat(config=bytes(self.aac[0].extradata), rate_hz=48_000, channels=2)

    def packets(self, kind: str, pts: int) -> list[bytes]:
        codec, sample_format, samples = getattr(self, kind)
        frame = av.AudioFrame(format=sample_format, layout="stereo", samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48_000, pts, Fraction(1, 48_000)
        return [bytes(packet) for packet in codec.encode(frame)]


def opened(width: int = 160, height: int = 120, audio: AudioFormat | None = None, **engine) -> Opened:
    """What a worker says of itself; `engine` changes what upscales."""
    scripted = EngineFormat(model="pattern", backend="scripted", precision="int8", parity_db=60.5, scale=2)
    return Opened(
        source=SourceFormat(
            codec="h264",
            width=width // 2,
            height=height // 2,
            pixel_format="yuv420p",
            fps=float(FPS),
            sample_aspect_ratio=(1, 1),
            decoder="h264",
        ),
        output=OutputFormat(width=width, height=height, encoder="libx264", bitrate_bps=500_000, on_gpu=False),
        engine=replace(scripted, **engine),
        audio=audio,
        renditions=(
            RenditionFormat(name="upscaled", width=width, height=height, bitrate_bps=500_000),
            RenditionFormat(name="90p", width=width * 90 // height // 2 * 2, height=90, bitrate_bps=400_000),
            RenditionFormat(name="source", width=width // 2, height=height // 2, bitrate_bps=300_000),
        ),
    )
