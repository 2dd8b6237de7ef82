"""The packets of a stream as the fragments of one endless MP4, for sinks that write or send it on."""

from collections import deque
from dataclasses import dataclass, field

from server.gateway.h264 import to_sample
from server.gateway.mp4.boxes import init_segment, media_segment
from server.gateway.mp4.tracks import AudioTrack, Sample, VideoTrack, sound_samples, tracks_of
from server.wire.messages import (
    AUDIO_CLOCK_HZ,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Opened,
    VideoPacket,
)

# No picture for longer is a hole in the timeline.
HOLE_TICKS = VIDEO_CLOCK_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """`moof` and `mdat`; times tick at the picture's clock."""

    init: bytes = field(repr=False)  # another object where size, codec or sound have changed
    starts: int
    ends: int
    independent: bool  # begins with a key frame
    follows: bool  # on the one before, without a hole or another init segment between them
    data: bytes = field(repr=False)


class Fragments:
    """Of the upscaled rendition. One begins at each key frame, and where the one before has lasted."""

    def __init__(self, *, lasts_s: float) -> None:
        """0: each picture is a fragment, there as soon as the picture is."""
        self._lasts = lasts_s * VIDEO_CLOCK_HZ
        self._opened: Opened | None = None
        self._tracks: tuple[VideoTrack, AudioTrack | None] | None = None
        self._init = b""
        self._pictures: list[tuple[VideoPacket, bytes]] = []  # of the fragment that grows
        self._end: int | None = None  # of the last picture; None: what comes next begins with a key frame
        self._follows = False
        self._sound: deque[AudioPacket] = deque(maxlen=4096)
        self._made = 0

    def opened(self, opened: Opened) -> None:
        """The tracks are these from the next key frame on."""
        self._opened = opened

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "aac":
            self._sound.append(packet)  # before the first picture too: sound does not wait for the upscaler

    def video(self, packet: VideoPacket) -> list[Fragment]:
        """The fragments that are whole by it."""
        if packet.rendition != UPSCALED:
            return []
        made = []
        if self._end is not None and packet.pts - self._end > HOLE_TICKS:
            made += self.interrupted()
        sample, parameter_sets = to_sample(packet.payload)
        tracks = self._tracks
        if packet.keyframe and parameter_sets is not None:
            tracks = tracks_of(self._opened, UPSCALED, parameter_sets)
        if tracks is None or (self._end is None and not packet.keyframe):
            return made
        if packet.keyframe:
            made += self._cut(packet.pts)
            if tracks != self._tracks:
                self._tracks, self._init, self._follows = tracks, init_segment(*tracks), False
        if self._end is None:
            self._follows = False
            while self._sound and self._sound[0].pts * VIDEO_CLOCK_HZ < packet.pts * AUDIO_CLOCK_HZ:
                self._sound.popleft()
        self._pictures.append((packet, sample))
        self._end = packet.pts + packet.duration
        if self._end - self._pictures[0][0].pts >= self._lasts:
            made += self._cut(self._end)
        return made

    def interrupted(self) -> list[Fragment]:
        """What there is. What follows begins with a key frame, somewhat later."""
        made = self._cut(self._end) if self._end is not None else []
        self._end = None
        self._sound.clear()
        return made

    def _cut(self, end: int) -> list[Fragment]:
        """The fragment that grows, unless it has no picture; the next one begins at `end`."""
        if not self._pictures:
            return []
        assert self._tracks is not None
        pictures, self._pictures = self._pictures, []
        times = [packet.pts for packet, _ in pictures] + [end]
        video = [
            Sample(time=packet.pts, duration=later - packet.pts, sync=packet.keyframe, data=sample)
            for (packet, sample), later in zip(pictures, times[1:], strict=True)
        ]
        sound = []
        while self._sound and self._sound[0].pts * VIDEO_CLOCK_HZ < end * AUDIO_CLOCK_HZ:
            sound.append(self._sound.popleft())
        self._made += 1
        fragment = Fragment(
            init=self._init,
            starts=times[0],
            ends=end,
            independent=video[0].sync,
            follows=self._follows,
            data=media_segment(self._made, video, sound_samples(self._tracks[1], sound)),
        )
        self._follows = True
        return [fragment]
