"""Recordings as HLS playlists: what there is of a time, and what comes while it is recorded."""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from server.gateway.record.file import Run
from server.gateway.record.index import Index, Indexed
from server.settings import Hls
from server.wire.messages import VIDEO_CLOCK_HZ

# Of a playlist that players load again and again.
MOST_SEGMENTS = 10_000
# A key frame this close to the wanted end of a segment ends it.
_EARLY_SHARE = 0.9
_MOST_REMEMBERED = 1024  # playlists


@dataclass(frozen=True, slots=True, kw_only=True)
class DvrSegment:
    """Part of a recorded file."""

    file: str
    offset: int
    bytes: int
    starts: datetime
    duration_s: float
    new_file: bool  # another init segment than before, though perhaps a like one
    discontinuity: bool  # the timeline or the tracks are others than before


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One playlist as it is now."""

    segments: Sequence[DvrSegment]  # at least one
    sequence: int  # of the first of them
    discontinuities: int  # before it
    target_duration_s: int


class TooLong(Exception):
    """More than a playlist holds."""


class Dvr:
    """For any thread, but not for the event loop."""

    def __init__(self, index: Index, settings: Hls) -> None:
        self._index = index
        self._least = _EARLY_SHARE * settings.segment_s * VIDEO_CLOCK_HZ
        self._target_duration_s = math.ceil(settings.segment_s)
        # The number of each file's first segment, and of the discontinuities until then, by stream and start:
        # what is deleted at the front changes none of what follows.
        self._numbers: OrderedDict[tuple[str, datetime], dict[str, tuple[int, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def window(self, stream: str, starts: datetime, ends: datetime) -> Window | None:
        """What there is of that time, in whole segments; None: nothing. Raises TooLong."""
        found = self._index.between(stream, starts, ends)
        with self._lock:
            numbers = self._numbers.setdefault((stream, starts), {})
            self._numbers.move_to_end((stream, starts))
            if len(self._numbers) > _MOST_REMEMBERED:
                self._numbers.popitem(last=False)
            first, counted = (0, 0), (0, 0)
            before: Indexed | None = None
            segments: list[DvrSegment] = []
            for indexed in found:
                discontinuity = before is not None and not indexed.follows(before)
                before = indexed
                own = [
                    run
                    for run in _grouped(indexed.runs, self._least, grows=indexed.grows)
                    if indexed.moment(run.ends) > starts and indexed.moment(run.starts) < ends
                ]
                if not own:
                    continue
                counted = counted[0], counted[1] + discontinuity
                if not segments:
                    first = counted = numbers.get(indexed.file.name, (0, 0))
                numbers[indexed.file.name] = counted
                counted = counted[0] + len(own), counted[1]
                segments += (
                    DvrSegment(
                        file=indexed.file.name,
                        offset=run.offset,
                        bytes=run.size,
                        starts=indexed.moment(run.starts),
                        duration_s=(run.ends - run.starts) / VIDEO_CLOCK_HZ,
                        new_file=run is own[0],
                        discontinuity=discontinuity and run is own[0] and bool(segments),
                    )
                    for run in own
                )
        if len(segments) > MOST_SEGMENTS:
            raise TooLong(f"{len(segments)} segments are more than a playlist holds ({MOST_SEGMENTS})")
        if not segments:
            return None
        longest_s = max(segment.duration_s for segment in segments)
        return Window(
            segments=segments,
            sequence=first[0],
            discontinuities=first[1],
            target_duration_s=max(self._target_duration_s, round(longest_s)),
        )

    def init(self, stream: str, file: str) -> bytes | None:
        """The init segment of a file; None where there is none."""
        indexed = self._index.find(stream, file)
        return None if indexed is None else indexed.init

    def read(self, stream: str, file: str, offset: int) -> bytes | None:
        """The segment of a file that begins there; None where none does."""
        indexed = self._index.find(stream, file)
        if indexed is None:
            return None
        runs = _grouped(indexed.runs, self._least, grows=indexed.grows)
        run = next((run for run in runs if run.offset == offset), None)
        if run is None:
            return None
        try:
            with self._index.open(indexed.file) as opened:
                opened.seek(run.offset)
                return opened.read(run.size)
        except OSError:
            return None  # it was deleted meanwhile


def _grouped(runs: Sequence[Run], least: float, *, grows: bool) -> Iterator[Run]:
    """Segments of at least so many ticks, but for the last one of a file that grows no more."""
    group: Run | None = None
    for run in runs:
        group = run if group is None else group._replace(size=group.size + run.size, ends=run.ends)
        if group.ends - group.starts >= least:
            yield group
            group = None
    if group is not None and not grows:
        yield group
