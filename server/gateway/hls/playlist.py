"""The text of HLS playlists (RFC 8216bis)."""

import math
from datetime import datetime

from server.gateway.hls.segments import Segments

MEDIA_PLAYLIST = "media.m3u8"


def multivariant(segments: Segments) -> str:
    """One variant, described by its latest segments."""
    listed = segments.listed
    init = listed[-1].init
    rates_bps = [len(segment.data) * 8 / segment.duration_s for segment in listed]
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


def media(segments: Segments) -> str:
    """The segments that there are."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{segments.target_duration_s}",
        f"#EXT-X-MEDIA-SEQUENCE:{segments.media_sequence}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{segments.discontinuity_sequence}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    init = None
    for segment in segments.listed:
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.init is not init:
            init = segment.init
            lines.append(f'#EXT-X-MAP:URI="{init.name}"')
        lines += (
            f"#EXT-X-PROGRAM-DATE-TIME:{_date(segment.starts)}",
            f"#EXTINF:{segment.duration_s:.5f},",
            segment.name,
        )
    if segments.ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join((*lines, ""))


def _date(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
