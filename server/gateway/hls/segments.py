"""One stream cut into HLS segments, in memory: from keyframe to keyframe, the last few kept."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
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
class Segment:
    name: str
    init: Init
    starts: datetime
    duration_s: float
    frames: int
    discontinuity: bool  # the timeline or the init segment is another than before
    data: bytes = field(repr=False)


@dataclass(slots=True)
class _Growing:
    """The segment that frames are still added to."""

    init: Init
    discontinuity: bool
    start: int
    frames: list[tuple[VideoPacket, bytes]] = field(default_factory=list)

    @property
    def end(self) -> int:
        last = self.frames[-1][0]
        return last.pts + last.duration

    @property
    def step(self) -> int:
        """Time from picture to picture, as it is now."""
        last = self.frames[-1][0]
        return last.pts - self.frames[-2][0].pts if len(self.frames) > 1 else last.duration


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
    ) -> None:
        """`on_listed` hears of the frames of each segment as players can have it."""
        self.settings = settings
        self.first = asyncio.Event()  # a segment is there, or none will come
        self.ended = False  # no segment follows those that there are
        self.listed: deque[Segment] = deque()
        self.media_sequence, self.discontinuity_sequence = _first_sequences()
        # RFC 8216, 6.2.1: it must not change. 4.3.3.1: no segment's duration may round to more.
        self.target_duration_s = math.ceil(settings.segment_s)
        self._limit = math.ceil((self.target_duration_s + 0.5) * VIDEO_CLOCK_HZ) - 1
        self._on_need_keyframe = on_need_keyframe
        self._on_listed = on_listed
        # Names that no earlier run of the service has given out: caches keep segments.
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._made = 0
        self._inits = 0
        # RFC 8216, 6.2.2: gone from the playlist, a segment stays for as long as the playlist was.
        self._kept: deque[Segment] = deque(maxlen=2 * settings.segments)
        self._clock_origin = datetime.now(UTC) - timedelta(seconds=time.monotonic())
        self._opened: Opened | None = None
        self._growing: _Growing | None = None
        self._audio: deque[AudioPacket] = deque(maxlen=4096)
        self._interrupted = False

    def opened(self, opened: Opened) -> None:
        """The tracks are these from the next keyframe on."""
        self._opened = opened

    def video(self, packet: VideoPacket) -> None:
        sample, parameter_sets = to_sample(packet.payload)
        growing = self._growing
        if growing is not None and (
            packet.pts - growing.end > HOLE_TICKS or packet.pts - growing.start > self._limit
        ):
            self.interrupt()
        if packet.keyframe and parameter_sets is not None:
            self._on_keyframe(packet.pts, parameter_sets)
        growing = self._growing
        if growing is None:
            self._on_need_keyframe()
            return
        growing.frames.append((packet, sample))
        long_enough = packet.pts - growing.start >= self.settings.segment_s * VIDEO_CLOCK_HZ
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

    def find(self, name: str) -> bytes | None:
        """The bytes of a segment or an init segment of that name."""
        for segment in self._kept:
            if segment.name == name:
                return segment.data
            if segment.init.name == name:
                return segment.init.data
        return None

    def _on_keyframe(self, pts: int, parameter_sets: ParameterSets) -> None:
        growing = self._growing
        wanted = self._tracks(parameter_sets)
        if wanted is None:
            return
        changed = growing is not None and (growing.init.video, growing.init.audio) != wanted
        if growing is None:
            while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < pts * AUDIO_CLOCK_HZ:
                self._audio.popleft()
        else:
            elapsed_s = (pts - growing.start) / VIDEO_CLOCK_HZ
            early = elapsed_s < EARLY_SHARE * self.settings.segment_s
            if early and not changed and not self._is_last_chance(growing, pts):
                return  # a keyframe that some viewer asked for
            self._finish(growing, pts)
        last = self._kept[-1].init if self._kept else None
        init = last if last and (last.video, last.audio) == wanted else self._new_init(*wanted)
        discontinuity = changed or (self._interrupted and last is not None)
        self._interrupted = False
        self._growing = _Growing(init, discontinuity, pts)

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

    def _finish(self, growing: _Growing, end: int) -> None:
        """Closes a segment; `end` is where the next one starts."""
        times = [packet.pts for packet, _ in growing.frames] + [end]
        video = [
            Sample(time=packet.pts, duration=times[i + 1] - packet.pts, sync=packet.keyframe, data=sample)
            for i, (packet, sample) in enumerate(growing.frames)
        ]
        self._made += 1
        segment = Segment(
            name=f"seg-{self._run}-{self._made}.m4s",
            init=growing.init,
            starts=self._clock_origin + timedelta(seconds=growing.start / VIDEO_CLOCK_HZ),
            duration_s=(end - growing.start) / VIDEO_CLOCK_HZ,
            frames=len(video),
            discontinuity=growing.discontinuity,
            data=media_segment(self._made, video, self._take_audio(growing, end)),
        )
        self._kept.append(segment)
        self.listed.append(segment)
        if len(self.listed) > self.settings.segments:
            self.media_sequence += 1
            self.discontinuity_sequence += self.listed.popleft().discontinuity
        self.first.set()
        self._on_listed([packet for packet, _ in growing.frames])

    def _take_audio(self, growing: _Growing, end: int) -> list[Sample]:
        """The sound up to the end of the segment. What comes late is in the next one: its time says where."""
        packets = []
        while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < end * AUDIO_CLOCK_HZ:
            packets.append(self._audio.popleft())
        track = growing.init.audio
        if track is None:
            return []
        times = [p.pts * track.rate_hz // AUDIO_CLOCK_HZ for p in packets]
        if packets:
            times.append((packets[-1].pts + packets[-1].duration) * track.rate_hz // AUDIO_CLOCK_HZ)
        return [
            Sample(time=times[i], duration=max(0, times[i + 1] - times[i]), sync=True, data=packet.payload)
            for i, packet in enumerate(packets)
        ]
