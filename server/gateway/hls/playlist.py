"""The text of HLS playlists (RFC 8216bis)."""

import math
from datetime import datetime
from itertools import accumulate
from statistics import median

from server.gateway.hls.segments import PART_S, Part, Segments

MEDIA_PLAYLIST = "media.m3u8"
# In target durations, the least that is allowed (4.4.3.8, 4.4.4.9): what is older than this a player need not
# be told again, and the parts of segments that are younger than this are listed.
_SKIP_TARGETS, _PARTS_TARGETS = 6, 3
_PARTS_BACK = 3  # so many parts behind the end a player stays: it must be two at least, three should it be


def multivariant(segments: Segments) -> str:
    """One variant, described by its latest segments."""
    listed = segments.listed
    init = listed[-1].init
    # Of segments that are long enough to say something (4.4.6.2); the first one of a stream is short.
    long = [s for s in listed if s.duration_s >= 0.5 * segments.target_duration_s] or listed
    rates_bps = [len(segment.data) * 8 / segment.duration_s for segment in long]
    average_bps = sum(len(s.data) for s in listed) * 8 / sum(s.duration_s for s in listed)
    fps = sum(segment.frames for segment in listed) / sum(segment.duration_s for segment in listed)
    attributes = (
        f"BANDWIDTH={math.ceil(max(rates_bps))}",
        f"AVERAGE-BANDWIDTH={math.ceil(average_bps)}",
        f'CODECS="{init.codecs}"',
        f"RESOLUTION={init.video.width}x{init.video.height}",
        f"FRAME-RATE={fps:.3f}",
    )
    lines = ("#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS")
    return "\n".join((*lines, f"#EXT-X-STREAM-INF:{','.join(attributes)}", MEDIA_PLAYLIST, ""))


def media(segments: Segments, *, delta: bool = False) -> str:
    """The segments that there are, with the parts of the last ones, and the part to come. `delta`: without
    the segments that a player has from before."""
    target_s, listed = segments.target_duration_s, segments.listed
    growing = segments.growing
    rows = [*listed, growing] if growing else [*listed]
    ages_s = [*accumulate(segment.duration_s for segment in reversed(rows))][
        ::-1
    ]  # from its start to the end
    # Of a slow source each part is one picture. A picture that was held for long once is no reason for every
    # player to stay that far behind.
    part_s = max(PART_S, median([part.duration_s for segment in rows for part in segment.parts] or [0.0]))
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        f"#EXT-X-TARGETDURATION:{target_s}",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,"
        f"CAN-SKIP-UNTIL={_SKIP_TARGETS * target_s:.1f},PART-HOLD-BACK={_PARTS_BACK * part_s:.5f}",
        f"#EXT-X-PART-INF:PART-TARGET={part_s:.5f}",
        f"#EXT-X-MEDIA-SEQUENCE:{segments.media_sequence}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{segments.discontinuity_sequence}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    skipped = sum(
        age_s - s.duration_s > _SKIP_TARGETS * target_s for s, age_s in zip(rows, ages_s, strict=True)
    )
    if delta and skipped:
        lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")
    else:
        skipped = 0
    init = None
    for segment, age_s in list(zip(rows, ages_s, strict=True))[skipped:]:
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.init is not init:
            init = segment.init
            lines.append(f'#EXT-X-MAP:URI="{init.name}"')
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_date(segment.starts)}")
        if age_s - segment.duration_s < _PARTS_TARGETS * target_s:
            lines += map(_part, segment.parts)
        if segment is not growing:
            lines += (f"#EXTINF:{segment.duration_s:.5f},", segment.name)
    if segments.ended:
        lines.append("#EXT-X-ENDLIST")
    elif (hint := segments.next_part) is not None:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{hint}"')
    return "\n".join((*lines, ""))


def _part(part: Part) -> str:
    independent = ",INDEPENDENT=YES" if part.independent else ""
    return f'#EXT-X-PART:DURATION={part.duration_s:.5f},URI="{part.name}"{independent}'


def _date(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
