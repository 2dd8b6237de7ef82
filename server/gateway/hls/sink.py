"""HLS as one of a stream's sinks: where segments and parts end is decided once, for all variants.

The upscaled rendition decides. The others have the same pictures and key frames, so theirs end there, too,
and have the same numbers: a player goes from one variant to another wherever a segment begins.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from server.gateway.h264 import ParameterSets, to_sample
from server.gateway.hls.segments import PART_S, Segments, Start
from server.gateway.mp4.fragments import HOLE_TICKS
from server.settings import Hls
from server.wire.messages import (
    AUDIO_CLOCK_HZ,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Opened,
    Rendition,
    VideoPacket,
)

# A keyframe this close to the wanted end of a segment ends it.
EARLY_SHARE = 0.9
# All parts but a segment's last have this share of PART_S (RFC 8216bis, 4.4.4.9). That being a little above a
# third of a second, whole pictures fill the share at every usual frame rate from 10 on.
_LEAST_SHARE = 0.85
_EPOCH_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass(slots=True)
class _Growing:
    """The segment that pictures are added to, in ticks."""

    start: int
    part: int  # where its part begins
    last: int = 0  # the last picture
    step: int = 0  # time from picture to picture, as it is now
    end: int = 0  # of the last picture, by its own word


def _first_sequences() -> tuple[int, int]:
    """Where segments and discontinuities are numbered from: by the time, so that the numbers go on over a
    restart of the service instead of back (RFC 8216, 6.2.2).

    Segments: there can't be so many; players that count in 31 bits have it until 2043. Discontinuities:
    more than one in ten minutes, all the time, are not provided for. hls.js walks an array of that length at
    every segment, so that the number has to stay small.

    A clock that is yet to be set, as of a machine that keeps none while it is off, counts from 0. It is read
    once: that it is set meanwhile changes nothing, and the next run starts far above.
    """
    since_s = max(0.0, time.time() - _EPOCH_S)
    return int(4 * since_s), int(since_s / 600)


class HlsSink:
    """Fed by the event loop; each packet costs it some tens of microseconds."""

    def __init__(
        self,
        settings: Hls,
        *,
        on_need_keyframe: Callable[[], None],
        on_listed: Callable[[Sequence[VideoPacket]], None] = lambda frames: None,
    ) -> None:
        """`on_listed` hears of the frames of each part of the upscaled rendition as players can have it."""
        self._settings = settings
        self._on_need_keyframe = on_need_keyframe
        self.segments = Segments(settings, on_listed=on_listed)
        self._number, self._discontinuities = _first_sequences()  # of the next segment, and before it
        self.segments.media_sequence = self._number
        self.segments.discontinuity_sequence = self._discontinuities
        self._limit = math.ceil((self.segments.target_duration_s + 0.5) * VIDEO_CLOCK_HZ) - 1
        self._variants: dict[Rendition, Segments] = {UPSCALED: self.segments}
        self._watched: Collection[Rendition] = ()
        self.latest: Opened | None = None
        self._growing: _Growing | None = None
        self._audio: deque[AudioPacket] = deque(maxlen=4096)
        self._interrupted = False
        self._ended = False

    def variant(self, rendition: Rendition) -> Segments:
        """Its segments; there are some while it is played."""
        variant = self._variants.get(rendition)
        if variant is None:
            variant = self._variants[rendition] = Segments(self._settings, rendition=rendition)
            if self.latest is not None:
                variant.opened(self.latest)
            if self._ended:
                variant.end()
        return variant

    @property
    def last_names(self) -> Collection[str]:
        """What the last segment may be fetched by, in any variant."""
        return {name for variant in self._variants.values() for name in variant.last_names}

    def of(self, name: str) -> Segments:
        """The variant that a segment, part or init segment of that name would be of."""
        return self._variants.get(name.partition("-")[0], self.segments)

    def watch(self, renditions: Collection[Rendition]) -> None:
        """Of these there are segments; what is on its way of others is not kept."""
        if self._growing is not None and set(renditions) - set(self._watched):
            self._on_need_keyframe()
        self._watched = renditions
        if not renditions:
            self.interrupted()
        for name, variant in self._variants.items():
            if name not in renditions:
                variant.clear()
        for name in renditions:
            self.variant(name)

    def opened(self, opened: Opened) -> None:
        """The tracks are these from the next keyframe on; a variant that is none of them ends."""
        self.latest = opened
        for name in self._variants.keys() - {form.name for form in opened.renditions}:
            self._variants.pop(name).end()
        for variant in self._variants.values():
            variant.opened(opened)

    def video(self, packet: VideoPacket) -> None:
        if packet.rendition not in self._watched:
            return
        sample, parameter_sets = to_sample(packet.payload)
        if packet.rendition == UPSCALED:
            self._cut(packet, parameter_sets)
        variant = self._variants.get(packet.rendition)
        if variant is not None and self._growing is not None:
            variant.add(packet, sample, parameter_sets)

    def _cut(self, packet: VideoPacket, parameter_sets: ParameterSets | None) -> None:
        """Ends parts and segments, and begins them, before a picture of the upscaled rendition."""
        growing = self._growing
        step = packet.duration
        if growing is not None:
            step = packet.pts - growing.last
            if packet.pts - growing.end > HOLE_TICKS or packet.pts - growing.start > self._limit:
                self.interrupted()
            elif self._is_part(growing, packet.pts) and not packet.keyframe:
                self._end_part(growing, packet.pts)
        if packet.keyframe and parameter_sets is not None:
            self._on_keyframe(packet.pts, parameter_sets)
        growing = self._growing
        if growing is None:
            self._on_need_keyframe()
            return
        growing.last, growing.step, growing.end = packet.pts, step, packet.pts + packet.duration
        long_enough = packet.pts - growing.start >= self._wanted_s * VIDEO_CLOCK_HZ
        # Asked for here, a keyframe is the next picture at the earliest.
        if long_enough or self._is_last_chance(growing, packet.pts + growing.step):
            self._on_need_keyframe()

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "aac":
            self._audio.append(packet)  # before the first picture too: sound does not wait for the upscaler

    def interrupted(self) -> None:
        """The timeline ends here and goes on elsewhere: at a new worker, or a source that came back."""
        if self._growing is not None:
            self._end_segment(min(self._growing.end, self._growing.start + self._limit))
            self._growing = None
        self._audio.clear()
        self._interrupted = True

    def ended(self) -> None:
        """What was begun becomes the last segment."""
        self.interrupted()
        self._ended = True
        for variant in self._variants.values():
            variant.end()

    @property
    def _fed(self) -> list[Segments]:
        return [variant for name, variant in self._variants.items() if name in self._watched]

    @property
    def _wanted_s(self) -> float:
        """How long a segment is to be. Who waits for the first one of a variant is not to wait for long."""
        waiting = any(variant.begun and not variant.listed for variant in self._fed)
        return PART_S if waiting else self._settings.segment_s

    def _on_keyframe(self, pts: int, parameter_sets: ParameterSets) -> None:
        growing = self._growing
        if not self.segments.can_begin(parameter_sets):
            return
        changed = self.segments.is_other(parameter_sets)
        if growing is None:
            while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < pts * AUDIO_CLOCK_HZ:
                self._audio.popleft()
        else:
            elapsed_s = (pts - growing.start) / VIDEO_CLOCK_HZ
            early = elapsed_s < EARLY_SHARE * self._wanted_s
            needed = changed or any(variant.wants_early_cut for variant in self._fed)
            if early and not needed and not self._is_last_chance(growing, pts):
                if self._is_part(growing, pts):
                    self._end_part(growing, pts)
                return  # a keyframe that some viewer asked for
            self._end_segment(pts)
        start = Start(
            pts=pts,
            number=self._number,
            discontinuity=changed or (self._interrupted and self.segments.has_made),
            discontinuities=self._discontinuities,
        )
        self._number += 1
        self._discontinuities += start.discontinuity
        self._interrupted = False
        self._growing = _Growing(start=pts, part=pts)
        for variant in self._fed:
            variant.begin(start)

    def _is_last_chance(self, growing: _Growing, pts: int) -> bool:
        """Whether the segment would be too long if it didn't end at this picture but at the next one."""
        return pts + growing.step - growing.start > self._limit

    def _is_part(self, growing: _Growing, pts: int) -> bool:
        """Whether the frames there are make a part, with the next one coming at `pts`."""
        lasts_s = (pts - growing.part) / VIDEO_CLOCK_HZ
        return lasts_s >= _LEAST_SHARE * PART_S or lasts_s + growing.step / VIDEO_CLOCK_HZ > PART_S

    def _end_part(self, growing: _Growing, end: int) -> None:
        growing.part = end
        sound = self._take_sound(end)
        for variant in self._fed:
            variant.end_part(end, sound)

    def _end_segment(self, end: int) -> None:
        sound = self._take_sound(end)
        for variant in self._variants.values():
            variant.end_segment(end, sound)

    def _take_sound(self, end: int) -> list[AudioPacket]:
        """The sound up to the end of a part. What comes late is in the next one: its time says where."""
        packets = []
        while self._audio and self._audio[0].pts * VIDEO_CLOCK_HZ < end * AUDIO_CLOCK_HZ:
            packets.append(self._audio.popleft())
        return packets
