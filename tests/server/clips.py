"""Clips made for one test: numbered frames in any pixel format, size, timing and shape; sound if wanted."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from server.wire.synthetic import SyntheticFormat
from server.worker.ingest.synthetic import synthetic_frame
from server.worker.process.picture import frame_from_planes


def write_clip(
    path: Path,
    *,
    width: int = 320,
    height: int = 180,
    frames: int = 25,
    fps: int = 25,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    aspect: Fraction = Fraction(1),
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio: str | None = None,
    audio_first: bool = False,
    audio_s: float | None = None,
    layout: str = "stereo",
    gop: int = 10,
    b_frames: int = 0,
    tags: tuple[int, int, int, int] | None = None,
) -> Path:
    """`pts` in ticks of `time_base`, one for each frame. `tags`: range, matrix, primaries, transfer. `audio`:
    an encoder, such as aac; its track before the picture's with `audio_first`, as long as the picture without
    `audio_s`."""
    with av.open(str(path), "w") as out:
        sound = out.add_stream(audio, rate=48_000, layout=layout) if audio and audio_first else None
        video = out.add_stream(codec, rate=fps)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = video.time_base = time_base or Fraction(1, fps)
        context.gop_size, context.max_b_frames = gop, b_frames
        context.sample_aspect_ratio = aspect
        if tags:
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = tags
        if codec == "libx264":
            video.options = {"preset": "ultrafast", "crf": "12"}
        if audio and not audio_first:
            sound = out.add_stream(audio, rate=48_000, layout=layout)
        form = SyntheticFormat(width=width + width % 2, height=height + height % 2)
        for number in range(frames):
            frame = numbered(number, form, width, height, pixel_format)
            frame.pts = pts[number] if pts else number
            frame.time_base = context.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            _write_tone(out, sound, seconds=frames / fps if audio_s is None else audio_s)
    return path


def numbered(number: int, form: SyntheticFormat, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    frame = frame_from_planes(synthetic_frame(number, form), form.width, form.height)
    if (width, height) == (form.width, form.height):
        return frame.reformat(format=pixel_format)
    # Odd sides: cut from packed RGB, where every column is its own.
    rgb = frame.to_ndarray(format="rgb24")[:height, :width]
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(format=pixel_format)


def _write_tone(out, sound, seconds: float) -> None:
    samples = round(seconds * 48_000)
    phase = np.arange(samples) * (2 * np.pi * 440 / 48_000)
    tone = np.repeat((8000 * np.sin(phase)).astype("<i2"), 2)[None]
    resampler = av.AudioResampler(sound.format.name, sound.layout.name, 48_000, sound.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(tone, "s16", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    for block in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(sound.encode(block))
    out.mux(sound.encode(None))
