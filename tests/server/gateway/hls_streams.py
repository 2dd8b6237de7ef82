"""Streams that something happens to, and their playlists as a client parses them while parts come."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from server.gateway.hls import playlist
from tests.server.gateway.hls_media import Source

LOOK_S = 0.5  # between what is seen
ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')


@dataclass
class Part:
    name: str
    duration_s: float
    independent: bool


@dataclass
class Row:
    """A segment, or what there is of the one that grows."""

    number: int
    name: str = ""
    duration_s: float = 0.0
    discontinuity: int = 0
    marked: bool = False
    init: str = ""
    starts: datetime | None = None
    parts: list[Part] = field(default_factory=list)


@dataclass
class Playlist:
    """A media playlist as a client parses it."""

    text: str
    variant: str = "upscaled"
    tags: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # whole segments
    growing: Row | None = None

    def __post_init__(self) -> None:
        number, discontinuity, init = 0, 0, ""
        row = Row(0)
        for line in self.text.splitlines():
            if not line.startswith("#"):
                row.name = line
                self.rows.append(row)
                number += 1
                row = Row(number, discontinuity=discontinuity, init=init)
                continue
            name, _, value = line[1:].partition(":")
            self.tags.append((name, value))
            match name:
                case "EXT-X-MEDIA-SEQUENCE":
                    row.number = number = int(value)
                case "EXT-X-DISCONTINUITY-SEQUENCE":
                    row.discontinuity = discontinuity = int(value)
                case "EXT-X-SKIP":
                    row.number = number = number + int(attributes(value)["SKIPPED-SEGMENTS"])
                case "EXT-X-DISCONTINUITY":
                    row.discontinuity = discontinuity = discontinuity + 1
                    row.marked = True
                case "EXT-X-MAP":
                    row.init = init = attributes(value)["URI"]
                case "EXT-X-PROGRAM-DATE-TIME":
                    row.starts = datetime.fromisoformat(value)
                case "EXTINF":
                    row.duration_s = float(value.split(",")[0])
                case "EXT-X-PART":
                    at = attributes(value)
                    row.parts.append(Part(at["URI"], float(at["DURATION"]), at.get("INDEPENDENT") == "YES"))
        self.growing = row if row.parts else None

    def values(self, name: str) -> list[str]:
        return [value for tag, value in self.tags if tag == name]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value

    def control(self, name: str) -> float:
        return float(attributes(self.value("EXT-X-SERVER-CONTROL"))[name])

    @property
    def target_s(self) -> int:
        return int(self.value("EXT-X-TARGETDURATION"))

    @property
    def part_target_s(self) -> float:
        return float(attributes(self.value("EXT-X-PART-INF"))["PART-TARGET"])

    @property
    def all(self) -> list[Row]:
        return [*self.rows, *([self.growing] if self.growing else [])]

    @property
    def ended(self) -> bool:
        return bool(self.values("EXT-X-ENDLIST"))

    @property
    def duration_s(self) -> float:
        return sum(row.duration_s for row in self.rows)


def attributes(value: str) -> dict[str, str]:
    """By 4.2; nothing may be left over."""
    found = ATTRIBUTE.findall(value)
    assert "".join(f"{name}={one}," for name, one in found).rstrip(",") == value, value
    assert len({name for name, _ in found}) == len(found), "each once"
    return {name: one.strip('"') for name, one in found}


@dataclass
class Moment:
    """What players of all variants could fetch at one moment."""

    playlists: list[Playlist]
    deltas: list[Playlist]
    multivariant: str
    source: Source
    at_s: float

    @property
    def whole(self) -> Playlist:
        return self.playlists[0]


# What happens to a stream, step by step: seconds that go by, or something else.
STREAMS: dict[str, tuple[Source, list[float | Callable[[Source], object]]]] = {}


def stream(name: str, source: Source, *steps: float | Callable[[Source], object]) -> None:
    STREAMS[name] = source, list(steps)


def interrupt(source: Source) -> None:
    source.sink.interrupted()
    source.pause(0.7)


stream("usual", Source(sound=True, segments=4), 22.0)
stream("long", Source(segments=14), lambda s: s.watch("upscaled", "90p"), 32.0, lambda s: s.sink.ended())
stream("10 fps", Source(fps=10), 14.0)
stream("a picture in half a second", Source(fps=2), 16.0)
stream("29.97 fps", Source(fps=30_000 / 1001, segments=3), 14.0)
stream(
    "variants", Source(), 5.0, lambda s: s.watch("upscaled", "90p"), 9.0, interrupt,
    6.0, lambda s: s.watch("upscaled", "90p", "source"), 8.0, lambda s: s.sink.ended(),
)  # fmt: skip
stream("a worker dies", Source(segments=3), 7.0, interrupt, 9.0, interrupt, 3.0, interrupt, 9.0)
stream("another size", Source(), 7.0, lambda s: s.resize(320, 180), 15.0, lambda s: s.sink.ended())
stream("a picture is held", Source(), 7.0, lambda s: s.pause(0.6), 12.0)
stream("key frames for viewers", Source(), *[lambda s: s.run(3.0, extra_keyframe_every=7)] * 5)
stream("nobody for a while", Source(), 7.0, lambda s: s.watch(), 3.0, lambda s: s.watch("upscaled"), 9.0)


@cache
def moments(name: str) -> list[Moment]:
    source, steps = STREAMS[name]
    seen = []

    def see() -> None:
        if not source.segments.listed:
            return
        there = [r for r in source.renditions if source.sink.variant(r).listed]
        seen.append(
            Moment(
                [Playlist(playlist.media(source.sink, r), r) for r in there],
                [Playlist(playlist.media(source.sink, r, delta=True), r) for r in there],
                playlist.multivariant(source.sink),
                source,
                source.pts / 90_000,
            )
        )

    for step in steps:
        if callable(step):
            step(source)
            see()
            continue
        for _ in range(round(step / LOOK_S)):
            source.run(LOOK_S)
            see()
    assert seen
    return seen
