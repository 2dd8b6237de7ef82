"""Recordings as HLS playlists: what there is of a time, and what comes while it is recorded."""

import math
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from server.gateway.hls.playlist import date as playlist_date
from server.gateway.record.file import Run
from server.gateway.record.index import Index, Indexed
from server.settings import Hls
from server.wire.messages import VIDEO_CLOCK_HZ

# A key frame this close to the wanted end of a segment ends it.
_EARLY_SHARE = 0.9
MOST_S = 6 * 3600.0  # of a playlist: players load it again and again
_MOST_REMEMBERED = 1024  # streams
_MOST_KEPT = 4096  # files
_MOST_SEGMENTS = 1 << 17  # of all of them, some 80 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class DvrSegment:
    """Part of a recorded file."""

    file: str
    offset: int
    bytes: int
    starts: datetime
    duration_s: float
    frames: int
    lines: str = field(repr=False)  # of a playlist
    new_init: bool = False  # the tracks are others than before, or it is the first
    discontinuity: bool = False  # the timeline or the tracks are


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One playlist as it is now."""

    segments: Sequence[DvrSegment]  # at least one
    sequence: int  # of the first of them
    discontinuities: int  # before it
    target_duration_s: int
    inits: Sequence[bytes]  # of the segments, each once


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The segments of a file, which a thousand players ask for again and again."""

    segments: Sequence[DvrSegment]
    starts: Sequence[datetime]  # of each
    longest_s: float
    made_of: tuple[int, bool]  # so many runs, and whether more come


class _Numbers(NamedTuple):
    """Of a file: its first segment's, and the discontinuities until then."""

    sequence: int
    discontinuities: int


_FIRST = _Numbers(10_000_000, 100_000)  # of the file that is played first: older ones are asked for later


class Dvr:
    """For any thread, but not for the event loop."""

    def __init__(self, index: Index, settings: Hls) -> None:
        self._index = index
        self._least = _EARLY_SHARE * settings.segment_s * VIDEO_CLOCK_HZ
        self._target_duration_s = math.ceil(settings.segment_s)
        # By stream and file. The same for all who play, wherever theirs begins: what is deleted at the front,
        # or left behind by a playlist that begins some time ago, changes none of what follows.
        self._numbers: OrderedDict[str, dict[str, _Numbers]] = OrderedDict()
        self._files: OrderedDict[tuple[str, str], _File] = OrderedDict()
        self._segments = 0  # of those
        self._lock = threading.Lock()

    def window(self, stream: str, starts: datetime, ends: datetime) -> Window | None:
        """What there is of that time, or of the last `MOST_S` of it, in whole segments; None: nothing."""
        listed = max(starts, ends - timedelta(seconds=MOST_S))
        found = self._index.between(stream, listed, ends)
        if not found:
            return None
        with self._lock:
            files = [self._file(indexed) for indexed in found]
            gaps = [not later.follows(sooner) for sooner, later in pairwise(found)]
            numbers = self._numbered(stream, found, files, gaps)
        segments: list[DvrSegment] = []
        first, longest_s = _Numbers(0, 0), 0.0
        inits: dict[bytes, None] = {}
        init = b""
        for indexed, file, number, gap in zip(found, files, numbers, (False, *gaps), strict=True):
            at = _first(file, listed)
            own = file.segments[at : bisect_left(file.starts, ends)]
            if not own:
                continue
            if not segments:
                first = number._replace(sequence=number.sequence + at)
            discontinuity, new_init = gap and bool(segments), indexed.init != init
            init = indexed.init
            inits[init] = None
            if discontinuity or new_init:
                own = [replace(own[0], discontinuity=discontinuity, new_init=new_init), *own[1:]]
            longest_s = max(longest_s, file.longest_s)
            segments += own
        if not segments:
            return None
        return Window(
            segments=segments,
            sequence=first.sequence,
            discontinuities=first.discontinuities,
            target_duration_s=max(self._target_duration_s, round(longest_s)),
            inits=list(inits),
        )

    def _numbered(
        self, stream: str, found: Sequence[Indexed], files: Sequence[_File], gaps: Sequence[bool]
    ) -> list[_Numbers]:
        """The files' numbers, of one at least; `gaps`: between each and the next."""
        known = self._numbers.setdefault(stream, {})
        self._numbers.move_to_end(stream)
        if len(self._numbers) > _MOST_REMEMBERED:
            self._numbers.popitem(last=False)
        names = [indexed.file.name for indexed in found]
        # The newest that is known decides, as every playlist that is loaded again has it.
        start = max((n for n, name in enumerate(names) if name in known), default=0)
        known.setdefault(names[start], _FIRST)
        for n in range(start, 0, -1):
            after = known[names[n]]
            known[names[n - 1]] = _Numbers(
                after.sequence - len(files[n - 1].segments), after.discontinuities - gaps[n - 1]
            )
        for n in range(start + 1, len(names)):
            before = known[names[n - 1]]
            known[names[n]] = _Numbers(
                before.sequence + len(files[n - 1].segments), before.discontinuities + gaps[n - 1]
            )
        numbers = [known[name] for name in names]
        while len(known) > _MOST_KEPT:
            del known[next(iter(known))]
        return numbers

    def _file(self, indexed: Indexed) -> _File:
        key, made_of = (indexed.file.stream, indexed.file.name), (len(indexed.runs), indexed.grows)
        file = self._files.get(key)
        if file is None or file.made_of != made_of:
            runs = _grouped(indexed.runs, self._least, grows=indexed.grows)
            segments = [_segment(indexed, run) for run in runs]
            self._segments += len(segments) - (len(file.segments) if file is not None else 0)
            file = self._files[key] = _File(
                segments=segments,
                starts=[segment.starts for segment in segments],
                longest_s=max((segment.duration_s for segment in segments), default=0.0),
                made_of=made_of,
            )
        self._files.move_to_end(key)
        while len(self._files) > _MOST_KEPT or (self._segments > _MOST_SEGMENTS and len(self._files) > 1):
            _, gone = self._files.popitem(last=False)
            self._segments -= len(gone.segments)
        return file

    def init(self, stream: str, file: str) -> bytes | None:
        """The init segment of a file; None where there is none."""
        indexed = self._index.find(stream, file)
        return None if indexed is None else indexed.init

    def read(self, stream: str, file: str, offset: int) -> bytes | None:
        """The segment of a file that begins there; None where none does."""
        indexed = self._index.find(stream, file)
        if indexed is None:
            return None
        with self._lock:
            segments = self._file(indexed).segments
        segment = next((segment for segment in segments if segment.offset == offset), None)
        if segment is None:
            return None
        try:
            with self._index.open(indexed.file) as opened:
                opened.seek(segment.offset)
                return opened.read(segment.bytes)
        except OSError:
            return None  # it was deleted meanwhile


def _segment(indexed: Indexed, run: Run) -> DvrSegment:
    file, starts = indexed.file.name, indexed.moment(run.starts)
    duration_s = (run.ends - run.starts) / VIDEO_CLOCK_HZ
    return DvrSegment(
        file=file,
        offset=run.offset,
        bytes=run.size,
        starts=starts,
        duration_s=duration_s,
        frames=run.frames,
        lines=f"#EXT-X-PROGRAM-DATE-TIME:{playlist_date(starts)}\n"
        f"#EXTINF:{duration_s:.5f},\nrecorded/{file}/{run.offset}.m4s",
    )


def _first(file: _File, moment: datetime) -> int:
    """The first segment that ends later."""
    at = max(0, bisect_right(file.starts, moment) - 1)
    if at < len(file.segments):
        segment = file.segments[at]
        at += segment.starts + timedelta(seconds=segment.duration_s) <= moment
    return at


def _grouped(runs: Sequence[Run], least: float, *, grows: bool) -> Iterator[Run]:
    """Segments of at least so many ticks, but for the last one of a file that grows no more."""
    group: Run | None = None
    for run in runs:
        group = run if group is None else group.with_next(run)
        if group.ends - group.starts >= least:
            yield group
            group = None
    if group is not None and not grows:
        yield group
