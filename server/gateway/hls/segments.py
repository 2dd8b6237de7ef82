"""One stream cut into HLS segments, in memory: from keyframe to keyframe, each of parts."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from server.gateway.h264 import ParameterSets, to_sample
from server.gateway.hls.fmp4 import AudioTrack, Sample, VideoTrack, init_segment, media_segment
from server.settings import Hls
from server.wire.messages import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, AudioPacket, Opened, VideoPacket

# No picture for longer is a hole in the timeline, and a discontinuity in the playlist.
HOLE_TICKS = VIDEO_CLOCK_HZ
# A keyframe this close to the wanted end of a segment ends it.
EARLY_SHARE = 0.9
# No part lasts longer, unless a picture does; all but a segment's last have this share of it (RFC 8216bis,
# 4.4.4.9). A little above a third: whole pictures fill that share at every usual frame rate from 10 on.
PART_S, _LEAST_SHARE = 0.334, 0.85
_EPOCH_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """What a player needs before a segment; another one begins when size, codec or sound change."""

    name: str
    video: VideoTrack
    audio: AudioTrack | None
    data: bytes = field(repr=False)

    @property
    def codecs(self) -> str:
        return ",".join([self.video.codec] + ([self.audio.codec] if self.audio else []))


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


@dataclass(slots=True)
class _Growing:
    """The segment that frames are still added to, and the frames of its next part: one at least, but while a
    frame is being added."""

    segment: Segment
    start: int
    frames: list[tuple[VideoPacket, bytes]] = field(default_factory=list)
    step: int = 0  # time from picture to picture, as it is now
    end: int = 0  # of the last frame, by its own word

    def add(self, packet: VideoPacket, sample: bytes, step: int) -> None:
        self.frames.append((packet, sample))
        self.end, self.step = packet.pts + packet.duration, step


def _first_sequences() -> tuple[int, int]:
    """Where segments and discontinuities are numbered from: by the time, so that the numbers go on over a
    restart of the service instead of back (RFC 8216, 6.2.2).

    Segments: there can't be so many; players that count in 31 bits have it until 2043. Discontinuities:
    more than one in ten minutes, all the time, are not provided for. hls.js walks an array of that length at
    every segment, so that the number has to stay small.
    """
    since_s = time.time() - _EPOCH_S
    return int(4 * since_s), int(since_s / 600)


class Segments:
    """Fed with a stream's packets by the event loop; each costs it some tens of microseconds."""

    def __init__(
        self,
        settings: Hls,
        *,
        on_need_keyframe: Callable[[], None],
        on_listed: Callable[[Sequence[VideoPacket]], None] = lambda frames: None,
        on_part: Callable[[Segment, Part], None] = lambda segment, part: None,
        on_segment: Callable[[Segment], None] = lambda segment: None,
    ) -> None:
        """`on_listed` hears of the frames of each part as players can have it, `on_part` of the part, and
        `on_segment` of each segment that is whole."""
        self.settings = settings
        self.first = asyncio.Event()  # a segment is there, or none will come
        self._changed = asyncio.Event()
        self.ended = False  # no segment follows those that there are
        self.listed: deque[Segment] = deque()
        self.media_sequence, self.discontinuity_sequence = _first_sequences()
        # RFC 8216, 6.2.1: it must not change. 4.3.3.1: no segment's duration may round to more.
        self.target_duration_s = math.ceil(settings.segment_s)
        self._limit = math.ceil((self.target_duration_s + 0.5) * VIDEO_CLOCK_HZ) - 1
        self._on_need_keyframe = on_need_keyframe
        self._on_listed = on_listed
        self._on_part = on_part
        self._on_segment = on_segment
        # Names that no earlier run of the service has given out: caches keep segments.
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._made = self._parts = self._inits = 0
        # RFC 8216, 6.2.2: gone from the playlist, a segment stays for as long as the playlist was.
        self._kept: deque[Segment] = deque(maxlen=2 * settings.segments)
        self._clock_origin = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        self._opened: Opened | None = None
        self._growing: _Growing | None = None
        self._audio: deque[AudioPacket] = deque(maxlen=4096)
        self._interrupted = False

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

    def opened(self, opened: Opened) -> None:
        """The tracks are these from the next keyframe on."""
        self._opened = opened

    def video(self, packet: VideoPacket) -> None:
        sample, parameter_sets = to_sample(packet.payload)
        growing = self._growing
        step = packet.duration
        if growing is not None:
            step = packet.pts - growing.frames[-1][0].pts
            if packet.pts - growing.end > HOLE_TICKS or packet.pts - growing.start > self._limit:
                self.interrupt()
            elif self._is_part(growing, packet.pts) and not packet.keyframe:
                self._finish_part(growing, packet.pts)
        if packet.keyframe and parameter_sets is not None:
            self._on_keyframe(packet.pts, parameter_sets)
        growing = self._growing
        if growing is None:
            self._on_need_keyframe()
            return
        growing.add(packet, sample, step)
        long_enough = packet.pts - growing.start >= self._wanted_s * VIDEO_CLOCK_HZ
        # Asked for here, a keyframe is the next picture at the earliest.
        if long_enough or self._is_last_chance(growing, packet.pts + growing.step):
            self._on_need_keyframe()

    def audio(self, packet: AudioPacket) -> None:
        self._audio.append(packet)  # before the first picture too: sound does not wait for the upscaler

    def interrupt(self) -> None:
        """The timeline ends here and goes on elsewhere: at a new worker, or a source that came back."""
        if self._growing is not None:
            self._finish(self._growing, min(self._growing.end, self._growing.start + self._limit))
            self._growing = None
        self._audio.clear()
        self._interrupted = True

    def pause(self) -> None:
        """Nobody plays: who comes later starts with what is then, not with what was."""
        if self.ended:
            return
        self.interrupt()
        self.media_sequence += len(self.listed)
        self.discontinuity_sequence += sum(segment.discontinuity for segment in self.listed)
        self.listed.clear()
        self.first.clear()

    def end(self) -> None:
        """What was begun becomes the last segment."""
        self.interrupt()
        self.ended = True
        self.first.set()
        self._tell()

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

    @property
    def _wanted_s(self) -> float:
        """How long a segment is to be. Who waits for the first one is not to wait for long."""
        return self.settings.segment_s if self.listed else PART_S

    def _on_keyframe(self, pts: int, parameter_sets: ParameterSets) -> None:
        growing = self._growing
        wanted = self._tracks(parameter_sets)
        if wanted is None:
            return
        changed = growing is not None and not _fits(growing.segment.init, wanted)
        if growing is None:
            while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < pts * AUDIO_CLOCK_HZ:
                self._audio.popleft()
        else:
            elapsed_s = (pts - growing.start) / VIDEO_CLOCK_HZ
            early = elapsed_s < EARLY_SHARE * self._wanted_s
            if early and not changed and not self._is_last_chance(growing, pts):
                if self._is_part(growing, pts):
                    self._finish_part(growing, pts)
                return  # a keyframe that some viewer asked for
            self._finish(growing, pts)
        last = self._kept[-1].init if self._kept else None
        self._made += 1
        segment = Segment(
            name=f"seg-{self._run}-{self._made}.m4s",
            init=last if last and _fits(last, wanted) else self._new_init(*wanted),
            starts=self._clock_origin + timedelta(seconds=pts / VIDEO_CLOCK_HZ),
            discontinuity=changed or (self._interrupted and last is not None),
        )
        self._interrupted = False
        self._growing = _Growing(segment, pts)

    def _is_last_chance(self, growing: _Growing, pts: int) -> bool:
        """Whether the segment would be too long if it didn't end at this picture but at the next one."""
        return pts + growing.step - growing.start > self._limit

    def _tracks(self, parameter_sets: ParameterSets) -> tuple[VideoTrack, AudioTrack | None] | None:
        opened = self._opened
        if opened is None:
            return None
        video = VideoTrack(
            parameter_sets=parameter_sets,
            width=opened.output.width,
            height=opened.output.height,
            sample_aspect_ratio=opened.source.sample_aspect_ratio,
        )
        audio = opened.audio
        if audio is None:
            return video, None
        return video, AudioTrack(config=audio.config, rate_hz=audio.rate_hz, channels=audio.channels)

    def _new_init(self, video: VideoTrack, audio: AudioTrack | None) -> Init:
        self._inits += 1
        name = f"init-{self._run}-{self._inits}.mp4"
        return Init(name=name, video=video, audio=audio, data=init_segment(video, audio))

    def _is_part(self, growing: _Growing, pts: int) -> bool:
        """Whether the frames there are make a part, with the next one coming at `pts`."""
        lasts_s = (pts - growing.frames[0][0].pts) / VIDEO_CLOCK_HZ
        return lasts_s >= _LEAST_SHARE * PART_S or lasts_s + growing.step / VIDEO_CLOCK_HZ > PART_S

    def _finish_part(self, growing: _Growing, end: int) -> None:
        """Closes a part; `end` is where the next one starts."""
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
            data=media_segment(self._parts, video, self._take_audio(growing.segment.init, end)),
        )
        growing.segment.parts.append(part)
        self._tell()
        self._on_listed([packet for packet, _ in frames])
        self._on_part(growing.segment, part)

    def _finish(self, growing: _Growing, end: int) -> None:
        """Closes a segment and its last part; `end` is where the next one starts."""
        self._finish_part(growing, end)
        self._kept.append(growing.segment)
        self.listed.append(growing.segment)
        if len(self.listed) > self.settings.segments:
            self.media_sequence += 1
            self.discontinuity_sequence += self.listed.popleft().discontinuity
        self.first.set()
        self._tell()
        self._on_segment(growing.segment)

    def _part_name(self, number: int) -> str:
        return f"part-{self._run}-{number}.m4s"

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _take_audio(self, init: Init, end: int) -> list[Sample]:
        """The sound up to the end of the part. What comes late is in the next one: its time says where."""
        packets = []
        while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < end * AUDIO_CLOCK_HZ:
            packets.append(self._audio.popleft())
        track = init.audio
        if track is None:
            return []
        times = [p.pts * track.rate_hz // AUDIO_CLOCK_HZ for p in packets]
        if packets:
            times.append((packets[-1].pts + packets[-1].duration) * track.rate_hz // AUDIO_CLOCK_HZ)
        return [
            Sample(time=times[i], duration=max(0, times[i + 1] - times[i]), sync=True, data=packet.payload)
            for i, packet in enumerate(packets)
        ]


def _fits(init: Init, tracks: tuple[VideoTrack, AudioTrack | None]) -> bool:
    return (init.video, init.audio) == tracks
