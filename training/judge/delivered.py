"""What a viewer gets for a bitrate: a live source upscaled and encoded again, against the source as it is.

HR becomes LR and is compressed as a source is (x264, preset veryfast). From there on, two ways to a viewer,
each at several rates of our own encoder: upscaled here and encoded large; or encoded small, and enlarged by
the player. All are compared with HR, on luma; chroma is enlarged alike wherever it is upscaled here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch

from engine.frame import Plane, YuvFrame
from engine.network.frame_net import Enlarge, to_uint8
from training.data.resize import upscale_bicubic
from training.judge.clip import H264, Clip, hr_frames, lr_frames
from training.judge.contenders import Contender
from training.judge.video_quality import Meter, VideoResult

PRESET = "superfast"  # of the service's encoder, as it is set where nobody chose another
SOURCE = "source"  # as small as it came, enlarged by the player


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One rate of one way: its figures, and the luma of the picture in the clip's middle."""

    result: VideoResult
    picture: Plane = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`name`: the contender's, or SOURCE. By falling bitrate."""

    name: str
    rates: tuple[Delivered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One clip. `hr`, `lr`: luma of the picture in its middle, LR as it came out of the source's codec."""

    clip: Clip
    source_crf: int
    source_bps: float
    frames: int
    hr: Plane = field(repr=False)
    lr: Plane = field(repr=False)
    ways: tuple[Way, ...]


def deliver(
    contenders: Sequence[Contender], clip: Clip, source_crf: int, crfs: Sequence[int], frames: int
) -> Comparison:
    """`crfs`: the encoder's, one for each rate. Raises ValueError naming a clip that breaks off."""
    width, height = clip.width // clip.scale, clip.height // clip.scale
    codec = H264(width, height, clip.fps, source_crf)
    source = list(codec.through(lr_frames(clip, frames)))
    if len(source) < 2:
        raise ValueError(f"{clip.path} has {len(source)} frames, must have at least 2")
    hr = [frame.y for frame in hr_frames(clip, frames)]
    middle = len(source) // 2
    ways = [_way(SOURCE, source, (width, height), lambda y: upscale_bicubic(y, clip.scale), clip, hr, crfs)]
    for contender in contenders:
        upscaled = list(_upscaled(contender, clip, source))
        ways.append(_way(contender.name, upscaled, (clip.width, clip.height), lambda y: y, clip, hr, crfs))
    return Comparison(
        clip=clip,
        source_crf=source_crf,
        source_bps=codec.bitrate_bps(len(source)),
        frames=len(source),
        hr=hr[middle],
        lr=source[middle].y,
        ways=tuple(ways),
    )


def _upscaled(contender: Contender, clip: Clip, source: Sequence[YuvFrame]) -> Iterator[YuvFrame]:
    luma = contender.open_video(clip.width // clip.scale, clip.height // clip.scale, clip.colour)
    scale = clip.scale
    # Where `frame_net` has chroma of 4:2:0.
    enlarge = Enlarge(scale, -(scale - 1) / (2 * scale), -(scale - 1) / (4 * scale))
    for frame in source:
        with torch.inference_mode():
            planes = torch.from_numpy(np.stack([frame.u, frame.v])[None]).float()
            u, v = to_uint8(enlarge(planes))[0].numpy()
        yield YuvFrame(y=luma(frame), u=u, v=v)


def _way(
    name: str,
    frames: Sequence[YuvFrame],
    size: tuple[int, int],
    shown: Callable[[Plane], Plane],
    clip: Clip,
    hr: Sequence[Plane],
    crfs: Sequence[int],
) -> Way:
    rates = []
    for crf in sorted(crfs):
        codec = H264(*size, clip.fps, crf, PRESET)
        with ExitStack() as stack:
            meter, picture = Meter(clip, stack), hr[0]
            for index, (frame, original) in enumerate(zip(codec.through(iter(frames)), hr, strict=True)):
                seen = shown(frame.y)
                meter.add(seen, original)
                if index == len(hr) // 2:
                    picture = seen
            result = meter.result(crf, codec.bitrate_bps(len(hr)))
        rates.append(Delivered(result=result, picture=picture))
    return Way(name=name, rates=tuple(rates))
