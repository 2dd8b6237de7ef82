"""What was recorded in a time as one MP4 file, made while it is sent."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime

from server.gateway.mp4 import reading
from server.gateway.mp4.moving import Mover
from server.gateway.record.file import Run
from server.gateway.record.index import Index, Indexed
from server.wire.messages import VIDEO_CLOCK_HZ

_CHUNK_BYTES = 1 << 18


class FormatChanges(Exception):
    """The files have other sizes, codecs or sound, which one MP4 track can't have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    indexed: Indexed
    runs: Sequence[Run]  # that follow each other
    follows: bool  # on the part before, without a gap


class Cut:
    """From the last key frame before the time to the first one after it. Where the stream was away there is
    no gap: what follows comes at once."""

    def __init__(self, index: Index, parts: Sequence[_Part]) -> None:
        self._index = index
        self._parts = parts
        self._mover = Mover(parts[0].indexed.init)
        ticks = sum(part.runs[-1].ends - part.runs[0].starts for part in parts)
        self._init = self._mover.init(ticks / VIDEO_CLOCK_HZ)
        self.size = len(self._init) + sum(run.size for part in parts for run in part.runs)
        self.starts = parts[0].indexed.moment(parts[0].runs[0].starts)

    def chunks(self) -> Generator[bytes, None, None]:
        """The file, piece by piece; blocks. Raises OSError where a recording has been deleted meanwhile."""
        yield self._init
        made = ends = moved_ticks = 0
        for part in self._parts:
            if not part.follows:
                moved_ticks = ends - part.runs[0].starts
            last = part.runs[-1]
            with self._index.open(part.indexed.file) as file:
                for placed in reading.fragments(file, part.runs[0].offset):
                    if placed.offset >= last.offset + last.size:
                        break
                    made += 1
                    file.seek(placed.offset)
                    moof, ends = self._mover.move(file.read(placed.header_bytes), moved_ticks, made)
                    yield moof
                    left = placed.size - placed.header_bytes
                    while left:
                        data = file.read(min(left, _CHUNK_BYTES))
                        if not data:
                            raise OSError(None, f"recording {part.indexed.file.name} is cut short")
                        left -= len(data)
                        yield data


def cut(index: Index, stream: str, starts: datetime, ends: datetime) -> Cut | None:
    """None where nothing was recorded then. Raises FormatChanges. Blocks."""
    parts: list[_Part] = []
    for indexed in index.between(stream, starts, ends):
        runs = [
            run
            for run in indexed.runs
            if indexed.moment(run.ends) > starts and indexed.moment(run.starts) < ends
        ]
        if not runs:
            continue
        before = parts[-1].indexed if parts else None
        if before is not None and before.init != indexed.init:
            at = indexed.moment(runs[0].starts).isoformat(timespec="seconds")
            raise FormatChanges(f"the picture's size, its codec or the sound change at {at}")
        parts.append(_Part(indexed=indexed, runs=runs, follows=indexed.follows(before)))
    return Cut(index, parts) if parts else None
