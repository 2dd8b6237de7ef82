"""LR as a live stream has it: downscaled, then really encoded and decoded, with chroma subsampling.

A still photograph becomes a short clip whose camera pans by whole LR pixels, so that the frames taken are
inter-coded like those of a stream, and each has an exact HR counterpart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import av
import numpy as np
from PIL import Image, ImageFilter

from training.data.images import EXACT, Rgb, rgb_of
from training.data.resize import Kernel, downscale

Codec = Literal["libx264", "libx265"]
CLIP_FRAMES = 5
PAN = 4  # LR pixels from the first to the last frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """One way an encoder may have treated a stream."""

    codec: Codec
    crf: int
    preset: str

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Compression":
        """A live stream as often met: mostly H.264, CRF 18-35, fast presets."""
        codec: Codec = "libx264" if rng.random() < 0.8 else "libx265"
        preset = str(rng.choice(["ultrafast", "veryfast", "medium"]))
        return cls(codec=codec, crf=int(rng.integers(18, 36)), preset=preset)

    @classmethod
    def draw_live(cls, rng: np.random.Generator) -> "Compression":
        """A wider choice: CRF 15-40, from hardly touched to hardly bearable, mostly between."""
        codec: Codec = "libx264" if rng.random() < 0.8 else "libx265"
        preset = str(rng.choice(["ultrafast", "superfast", "veryfast", "faster", "medium"]))
        return cls(codec=codec, crf=round(rng.triangular(15, 26, 40)), preset=preset)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSource:
    """What a picture went through before it reached us: a lens, a scaler, a noisy sensor, one encoder or two.

    Of these the lens belongs to the picture: HR is as soft, for a network can't know how sharp it was meant.
    """

    kernel: Kernel
    blur: float  # sigma in HR pixels
    noise: float  # sigma in levels
    generations: tuple[Compression, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "LiveSource":
        kernel: Kernel = rng.choice(get_args(Kernel)) if rng.random() < 0.4 else "bicubic"
        blur = float(rng.uniform(0.4, 1.2)) if rng.random() < 0.25 else 0.0
        noise = float(rng.uniform(0.5, 2.5)) if rng.random() < 0.2 else 0.0
        count = 2 if rng.random() < 0.1 else 1
        return cls(
            kernel=kernel,
            blur=blur,
            noise=noise,
            generations=tuple(Compression.draw_live(rng) for _ in range(count)),
        )


def degrade_live(hr: Rgb, scale: int, rng: np.random.Generator) -> tuple[Rgb, Rgb]:
    """An HR image as one frame of a live stream through all that `LiveSource` names: (LR, HR of it)."""
    source = LiveSource.draw(rng)
    if source.blur:
        hr = np.asarray(Image.fromarray(hr).filter(ImageFilter.GaussianBlur(source.blur)))
    lr = downscale(hr, scale, source.kernel)
    if source.noise:
        noisy = lr + rng.normal(0.0, source.noise, lr.shape)
        lr = np.rint(noisy.clip(0, 255)).astype(np.uint8)
    coded, y, x = degrade_still(lr, source.generations, rng)
    return coded, seen(hr, scale, coded, y, x)


def seen(hr: Rgb, scale: int, coded: Rgb, y: int, x: int) -> Rgb:
    """The part of `hr` that a frame of `degrade_still` shows."""
    height, width = (side * scale for side in coded.shape[:2])
    return hr[y * scale : y * scale + height, x * scale : x * scale + width]


def compress(frames: list[Rgb], how: Compression) -> list[Rgb]:
    """Encodes and decodes a clip: (h, w, 3) uint8 RGB with even sides, in and out. 4:2:0, BT.601 limited."""
    height, width = frames[0].shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"frames of {width}×{height} must have even sides for 4:2:0")
    encoder = av.CodecContext.create(how.codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate = Fraction(25)
    quiet = {"x265-params": "log-level=none:pools=1"} if how.codec == "libx265" else {"threads": "1"}
    encoder.options = {"crf": str(how.crf), "preset": how.preset, "tune": "zerolatency", **quiet}
    decoder = av.CodecContext.create("h264" if how.codec == "libx264" else "hevc", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    packets = [
        packet
        for index, rgb in enumerate(frames)
        for packet in encoder.encode(_to_yuv(rgb, index))
    ]  # fmt: skip
    packets += encoder.encode(None)
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    if len(decoded) != len(frames):
        raise ValueError(f"{how}: {len(decoded)} of {len(frames)} frames came back")
    return [rgb_of(frame) for frame in decoded]


def _to_yuv(rgb: Rgb, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    yuv = frame.reformat(format="yuv420p", dst_colorspace="ITU601", interpolation=EXACT)
    yuv.pts = index
    return yuv


def degrade_still(
    lr: Rgb, generations: Sequence[Compression], rng: np.random.Generator
) -> tuple[Rgb, int, int]:
    """One frame of a panning clip over an LR image, encoded by each of `generations`: (frame, y, x), the
    frame showing lr[y:y+h, x:x+w]."""
    height, width = (side - PAN - (side - PAN) % 2 for side in lr.shape[:2])
    towards_y, towards_x = (int(t) for t in rng.integers(-1, 2, 2))
    offsets = []
    for step in range(CLIP_FRAMES):
        pan = round(step * PAN / (CLIP_FRAMES - 1))
        offsets.append(
            tuple(pan if t > 0 else PAN - pan if t < 0 else PAN // 2 for t in (towards_y, towards_x))
        )
    frames = [lr[y : y + height, x : x + width] for y, x in offsets]
    taken = int(rng.integers(CLIP_FRAMES))
    y, x = offsets[taken]
    for how in generations:
        frames = compress(frames, how)
    return frames[taken], y, x
