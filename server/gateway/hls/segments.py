"""The segments of one variant, in memory: from keyframe to keyframe, each of parts."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from server.gateway.h264 import ParameterSets
from server.gateway.mp4.boxes import init_segment, media_segment
from server.gateway.mp4.tracks import AudioTrack, Sample, VideoTrack, sound_samples, tracks_of
from server.settings import Hls
from server.wire.messages import (
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Opened,
    Rendition,
    VideoPacket,
)

# No part lasts longer, unless a picture does.
PART_S = 0.334
# In target durations, by RFC 8216bis, 6.2.2: the least that a playlist may be cut down to; how far from its
# end parts are told, and how long they can still be had from then on.
_LEAST_TARGETS = 3
PARTS_TARGETS = _PARTS_STAY_TARGETS = 3
_MOST_LISTS = 2  # of short segments: so many times as many as are to be in the playlist
# A variant that begins may end the segment of all others early: so often, before it waits for the next one.
_EARLY_CUTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """What a player needs before a segment; another one begins when size, codec or sound change."""

    name: str
    video: VideoTrack
    audio: AudioTrack | None
    data: bytes = field(repr=False)

    @property
    def codecs(self) -> list[str]:
        """RFC 6381."""
        return [self.video.codec] + ([self.audio.codec] if self.audio else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A fragment of a segment, which players with little delay fetch by itself."""

    name: str
    duration_s: float
    frames: int
    independent: bool  # begins with a keyframe
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Its parts one after the other; the last one of a stream may still get some."""

    name: str
    init: Init
    starts: datetime
    discontinuity: bool  # the timeline or the init segment is another than before
    parts: list[Part] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        return sum(part.duration_s for part in self.parts)

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)

    @property
    def data(self) -> bytes:
        return b"".join(part.data for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Of a segment, the same in every variant."""

    pts: int  # of its first picture
    number: int  # in the playlist
    discontinuity: bool
    discontinuities: int  # before it


@dataclass(slots=True)
class _Growing:
    """The segment that frames are still added to, and the frames of its next part."""

    segment: Segment
    frames: list[tuple[VideoPacket, bytes]] = field(default_factory=list)


class Segments:
    """One variant. `HlsSink` says where its segments and parts begin and end."""

    def __init__(
        self,
        settings: Hls,
        *,
        rendition: Rendition = UPSCALED,
        on_listed: Callable[[Sequence[VideoPacket]], None] = lambda frames: None,
    ) -> None:
        """`on_listed` hears of the frames of each part as players can have it."""
        self.settings = settings
        self.rendition = rendition
        self.first = asyncio.Event()  # a segment is there, or none will come
        self._changed = asyncio.Event()
        self.ended = False  # no segment follows those that there are
        self.listed: deque[Segment] = deque()
        self.media_sequence = self.discontinuity_sequence = 0
        # RFC 8216, 6.2.1: it must not change. 4.3.3.1: no segment's duration may round to more.
        self.target_duration_s = math.ceil(settings.segment_s)
        self._on_listed = on_listed
        # Names that no earlier run of the service has given out: caches keep segments.
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._prefix = "" if rendition == UPSCALED else f"{rendition}-"
        self._made = self._parts = self._inits = 0
        self._kept: deque[Segment] = deque()
        self._longest_s = 0.0  # playlist so far
        self._clock_origin = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        self._opened: Opened | None = None
        self._start: Start | None = None  # of the segment that begins with the next picture
        self._growing: _Growing | None = None
        self._early_cuts = _EARLY_CUTS

    @property
    def growing(self) -> Segment | None:
        """The segment after those listed, as far as it has parts."""
        growing = self._growing
        return growing.segment if growing is not None and growing.segment.parts else None

    @property
    def next_part(self) -> str | None:
        """The name of the part that comes next, in whichever segment; None where it follows none of those
        there are."""
        growing = self._growing
        if growing is None or (growing.segment.discontinuity and not growing.segment.parts):
            return None
        return self._part_name(self._parts + 1)

    @property
    def last_names(self) -> Collection[str]:
        """What the last segment may be fetched by: its own name, or its last part's."""
        return (self.listed[-1].name, self.listed[-1].parts[-1].name) if self.listed else ()

    @property
    def last_part(self) -> tuple[int, int] | None:
        """The number of the last segment that has parts, and the index of its last part."""
        last = self.growing or (self.listed[-1] if self.listed else None)
        if last is None:
            return None
        return self.media_sequence + len(self.listed) - (last is not self.growing), len(last.parts) - 1

    @property
    def begun(self) -> bool:
        """Whether there is a segment that its pictures belong to."""
        return self._growing is not None

    def has(self, sequence: int, part: int | None) -> bool:
        """Whether the segment of that number is whole, or has that part; beyond its last, the first of the
        next one counts (RFC 8216bis, 6.2.5.2)."""
        following = self.media_sequence + len(self.listed)
        if sequence >= following:
            growing = self.growing
            parts = len(growing.parts) if growing else 0
            return sequence == following and part is not None and part < parts
        if part is None or not self.listed or sequence < following - 1 or part < len(self.listed[-1].parts):
            return True
        return self.growing is not None

    async def changes(self) -> None:
        """Waits for the next part, segment or end."""
        await self._changed.wait()

    def find(self, name: str) -> bytes | None:
        """The bytes of a segment, a part or an init segment of that name."""
        for segment in (*self._kept, *([self.growing] if self.growing else [])):
            if segment.name == name and segment is not self.growing:
                return segment.data
            if segment.init.name == name:
                return segment.init.data
            for part in segment.parts:
                if part.name == name:
                    return part.data
        return None

    def opened(self, opened: Opened) -> None:
        """The tracks are these from the next keyframe on."""
        self._opened = opened

    def can_begin(self, parameter_sets: ParameterSets) -> bool:
        """Whether it is known what the pictures of these are."""
        return self._tracks(parameter_sets) is not None

    def is_other(self, parameter_sets: ParameterSets) -> bool:
        """Whether the segment that grows can't go on with these."""
        return self._growing is not None and not _fits(
            self._growing.segment.init, self._tracks(parameter_sets)
        )

    @property
    def wants_early_cut(self) -> bool:
        """It has nothing to go on with, and players wait."""
        return self._growing is None and self._early_cuts > 0

    def begin(self, start: Start) -> None:
        """A segment begins with the picture of that time, if that comes as a key frame."""
        if self._growing is None:
            self._early_cuts -= 1
        self._start = start

    def add(self, packet: VideoPacket, sample: bytes, parameter_sets: ParameterSets | None) -> None:
        start = self._start
        if start is not None:
            self._start = None
            tracks = self._tracks(parameter_sets) if parameter_sets is not None else None
            if packet.pts == start.pts and packet.keyframe and tracks is not None:
                self._open(start, *tracks)
            elif self.listed:
                self.clear()  # one is missing, and their numbers go on
        if self._growing is not None:
            self._growing.frames.append((packet, sample))

    def end_part(self, end: int, sound: Sequence[AudioPacket]) -> None:
        """Closes a part, unless it has no frame; `end` is where the next one starts."""
        growing = self._growing
        if growing is None or not growing.frames:
            return
        frames, growing.frames = growing.frames, []
        times = [packet.pts for packet, _ in frames] + [end]
        video = [
            Sample(time=packet.pts, duration=times[i + 1] - packet.pts, sync=packet.keyframe, data=sample)
            for i, (packet, sample) in enumerate(frames)
        ]
        self._parts += 1
        part = Part(
            name=self._part_name(self._parts),
            duration_s=(end - times[0]) / VIDEO_CLOCK_HZ,
            frames=len(video),
            independent=video[0].sync,
            data=media_segment(self._parts, video, sound_samples(growing.segment.init.audio, sound)),
        )
        growing.segment.parts.append(part)
        self._tell()
        self._on_listed([packet for packet, _ in frames])

    def end_segment(self, end: int, sound: Sequence[AudioPacket]) -> None:
        """Closes a segment and its last part; `end` is where the next one starts."""
        self.end_part(end, sound)
        growing, self._growing, self._start = self._growing, None, None
        if growing is None or not growing.segment.parts:
            return
        self._kept.append(growing.segment)
        self.listed.append(growing.segment)
        self._early_cuts = _EARLY_CUTS
        while self._is_too_long():
            self.media_sequence += 1
            self.discontinuity_sequence += self.listed.popleft().discontinuity
        self._longest_s = max(self._longest_s, sum(segment.duration_s for segment in self.listed))
        self._forget()
        self.first.set()
        self._tell()

    def _forget(self) -> None:
        """Gone from the playlist, a segment stays for its own time and that of the longest playlist that it
        may have been in, and so do its parts."""
        kept, stay_s = self._kept, (PARTS_TARGETS + _PARTS_STAY_TARGETS) * self.target_duration_s
        newer_s = sum(segment.duration_s for segment in kept)
        while kept[0] not in self.listed:
            newer_s -= kept[0].duration_s
            if newer_s <= kept[0].duration_s + max(self._longest_s, stay_s):
                return
            kept.popleft()

    def clear(self) -> None:
        """Nobody plays: who comes later starts with what is then, not with what was."""
        if self.ended:
            return
        self._growing = self._start = None
        self._early_cuts = _EARLY_CUTS
        self.media_sequence += len(self.listed)
        self.discontinuity_sequence += sum(segment.discontinuity for segment in self.listed)
        self.listed.clear()
        self.first.clear()

    def end(self) -> None:
        self.ended = True
        self.first.set()
        self._tell()

    @property
    def has_made(self) -> bool:
        """Whether there was a segment before."""
        return bool(self._kept)

    def _is_too_long(self) -> bool:
        if len(self.listed) <= self.settings.segments:
            return False
        most = _MOST_LISTS * self.settings.segments
        rest_s = sum(segment.duration_s for segment in self.listed) - self.listed[0].duration_s
        return rest_s >= _LEAST_TARGETS * self.target_duration_s or len(self.listed) == most

    def _open(self, start: Start, video: VideoTrack, audio: AudioTrack | None) -> None:
        if not self.listed:
            self.media_sequence, self.discontinuity_sequence = start.number, start.discontinuities
        last = self._kept[-1].init if self._kept else None
        self._made += 1
        segment = Segment(
            name=f"{self._prefix}seg-{self._run}-{self._made}.m4s",
            init=last if last and _fits(last, (video, audio)) else self._new_init(video, audio),
            starts=self._clock_origin + timedelta(seconds=start.pts / VIDEO_CLOCK_HZ),
            discontinuity=start.discontinuity,
        )
        self._growing = _Growing(segment)

    def _tracks(self, parameter_sets: ParameterSets) -> tuple[VideoTrack, AudioTrack | None] | None:
        return tracks_of(self._opened, self.rendition, parameter_sets)

    def _new_init(self, video: VideoTrack, audio: AudioTrack | None) -> Init:
        self._inits += 1
        name = f"{self._prefix}init-{self._run}-{self._inits}.mp4"
        return Init(name=name, video=video, audio=audio, data=init_segment(video, audio))

    def _part_name(self, number: int) -> str:
        return f"{self._prefix}part-{self._run}-{number}.m4s"

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _fits(init: Init, tracks: tuple[VideoTrack, AudioTrack | None] | None) -> bool:
    return (init.video, init.audio) == tracks
