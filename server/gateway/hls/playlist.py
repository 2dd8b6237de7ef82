"""The text of HLS playlists (RFC 8216bis)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from statistics import median
from typing import NamedTuple, Self

from server.gateway.hls.segments import PART_S, PARTS_TARGETS, Part, Segment, Segments
from server.gateway.hls.sink import HlsSink
from server.wire.messages import UPSCALED, Rendition

MEDIA_PLAYLIST = "media.m3u8"
_SOUND_BPS = 192_000  # at most, with what the fragments take
# In target durations, the least that is allowed (4.4.3.8): what is older a player need not be told again.
_SKIP_TARGETS = 6
# So many parts behind the end a player stays (4.4.3.8): as it should be, and as it must be.
_PARTS_BACK, _LEAST_PARTS_BACK = 3, 2
_MAP_VERSION, _SKIP_VERSION = 6, 9  # that the tags of a playlist take (8)


def name_of(rendition: Rendition) -> str:
    """Of a variant's media playlist."""
    return MEDIA_PLAYLIST if rendition == UPSCALED else f"{rendition}.m3u8"


def multivariant(sink: HlsSink, folder: str = "") -> str:
    """Every variant, the upscaled one first: players begin with it. It has segments. `folder` is where their
    playlists are, from here."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_MAP_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    largest = _measured(sink.segments)
    for form in sink.latest.renditions if sink.latest else ():
        variant = sink.variant(form.name)
        init = variant.listed[-1].init if variant.listed else None
        if form.name == UPSCALED or init is not None:
            measured = _measured(variant)
        else:  # nobody plays it: it takes what its encoder may, and no more than a larger one
            at_most_bps = min(form.bitrate_bps + _SOUND_BPS, largest.most_bps)
            measured = Measured(most_bps=at_most_bps, average_bps=None, fps=largest.fps)
        # The same encoder makes them, so that who plays the larger picture plays the smaller one.
        codecs = (init or sink.segments.listed[-1].init).codecs
        width, height = (init.video.width, init.video.height) if init else (form.width, form.height)
        lines += [stream_inf(measured, codecs, width, height), folder + name_of(form.name)]
    return "\n".join((*lines, ""))


class Took(NamedTuple):
    """What a segment has."""

    bytes: int
    duration_s: float
    frames: int  # 0: that isn't known


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the segments of a variant take."""

    most_bps: float
    average_bps: float | None
    fps: float  # 0: that isn't known

    @classmethod
    def of(cls, segments: Iterable[Took], target_duration_s: int) -> Self:
        """Of one at least."""
        listed = list(segments)
        # Of segments that are long enough to say something (4.4.6.2); the first one of a stream is short.
        long = [s for s in listed if s.duration_s >= 0.5 * target_duration_s] or listed
        counted = [segment for segment in listed if segment.frames]
        duration_s = sum(segment.duration_s for segment in listed)
        average_bps = sum(segment.bytes for segment in listed) * 8 / duration_s
        most_bps = max(segment.bytes * 8 / segment.duration_s for segment in long)
        return cls(
            most_bps=max(most_bps, average_bps),
            average_bps=average_bps,
            fps=sum(s.frames for s in counted) / sum(s.duration_s for s in counted) if counted else 0.0,
        )


def _measured(segments: Segments) -> Measured:
    took = (Took(len(s.data), s.duration_s, s.frames) for s in segments.listed)
    return Measured.of(took, segments.target_duration_s)


def stream_inf(measured: Measured, codecs: Iterable[str], width: int, height: int) -> str:
    """The tag before a variant's address."""
    attributes = [f"BANDWIDTH={math.ceil(measured.most_bps)}"]
    if measured.average_bps is not None:
        attributes.append(f"AVERAGE-BANDWIDTH={math.ceil(measured.average_bps)}")
    attributes += [f'CODECS="{",".join(codecs)}"', f"RESOLUTION={width}x{height}"]
    if measured.fps:
        attributes.append(f"FRAME-RATE={measured.fps:.3f}")
    return f"#EXT-X-STREAM-INF:{','.join(attributes)}"


def media(sink: HlsSink, rendition: Rendition = UPSCALED, *, delta: bool = False) -> str:
    """The segments of a variant, with the parts of the last ones, the part to come, and how far the other
    variants are. `delta`: without the segments that a player has from before."""
    segments = sink.variant(rendition)
    target_s = segments.target_duration_s
    rows = _rows(segments)
    older = sum(back_s > _SKIP_TARGETS * target_s for _, back_s in rows)
    skipped = older if delta and not segments.ended else 0
    part_s, hold_back_s = _part_times(sink)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_SKIP_VERSION if skipped else _MAP_VERSION}",
        f"#EXT-X-TARGETDURATION:{target_s}",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,"
        f"CAN-SKIP-UNTIL={_SKIP_TARGETS * target_s:.1f},PART-HOLD-BACK={hold_back_s:.5f}",
        f"#EXT-X-PART-INF:PART-TARGET={part_s:.5f}",
        f"#EXT-X-MEDIA-SEQUENCE:{segments.media_sequence}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{segments.discontinuity_sequence}",
    ]
    if skipped:
        lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")
    init = None
    for segment, back_s in rows[skipped:]:
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.init is not init:
            init = segment.init
            lines.append(f'#EXT-X-MAP:URI="{init.name}"')
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{date(segment.starts)}")
        if back_s < PARTS_TARGETS * target_s:
            lines += map(_part, segment.parts)
        if segment is not segments.growing:
            lines += (f"#EXTINF:{segment.duration_s:.5f},", segment.name)
    if segments.ended:
        lines.append("#EXT-X-ENDLIST")
    elif (hint := segments.next_part) is not None:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{hint}"')
    if not segments.ended:
        lines += _reports(sink, rendition)
    return "\n".join((*lines, ""))


def part_target_s(sink: HlsSink) -> float:
    """No part that is listed lasts longer."""
    return _part_times(sink)[0]


def _part_times(sink: HlsSink) -> tuple[float, float]:
    """Part target, and how far behind the end a player stays; the same in all variants (6.2.4)."""
    rows = _rows(sink.segments)
    told_s = PARTS_TARGETS * sink.segments.target_duration_s
    told = [part.duration_s for row, back_s in rows if back_s < told_s for part in row.parts]
    # Of a slow source each part is one picture.
    usual_s = max(PART_S, median([part.duration_s for row, _ in rows for part in row.parts] or [0.0]))
    target_s = max([usual_s, *told])
    # A picture that was held for long once is no reason for every player to stay three times that far behind.
    return target_s, max(_PARTS_BACK * usual_s, _LEAST_PARTS_BACK * target_s)


def _rows(segments: Segments) -> list[tuple[Segment, float]]:
    """What is listed and what grows, each with the time from its end to the end of all."""
    growing = segments.growing
    rows = [*segments.listed, growing] if growing else [*segments.listed]
    backs_s = [*accumulate((row.duration_s for row in reversed(rows)), initial=0.0)][-2::-1]
    return list(zip(rows, backs_s, strict=True))


def _reports(sink: HlsSink, rendition: Rendition) -> Iterator[str]:
    """One that nobody plays would be as far as the upscaled one (4.4.5.4)."""
    for form in sink.latest.renditions if sink.latest else ():
        if form.name != rendition:
            last = sink.variant(form.name).last_part or sink.segments.last_part
            if last is not None:
                sequence, part = last
                name = name_of(form.name)
                yield f'#EXT-X-RENDITION-REPORT:URI="{name}",LAST-MSN={sequence},LAST-PART={part}'


def _part(part: Part) -> str:
    independent = ",INDEPENDENT=YES" if part.independent else ""
    return f'#EXT-X-PART:DURATION={part.duration_s:.5f},URI="{part.name}"{independent}'


def date(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
