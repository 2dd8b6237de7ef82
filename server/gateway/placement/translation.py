"""Times of a host's clock as times of ours, and back. What viewers see goes on evenly meanwhile."""

from msgspec.structs import replace

from server.wire.hello import ClockTold
from server.wire.messages import (
    AUDIO_CLOCK_HZ,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioPacket,
    Message,
    PublishedData,
    VideoPacket,
    WorkerJob,
)
from server.wire.offset import ClockJumped, ClockOffset

# An estimate that has moved by less isn't followed: sound is cut into packets that adjoin. By so much at a
# time it is, from packet to packet, which is less than any of them lasts: times never go back.
_FOLLOWED_NS, _STEP_NS = 5_000_000, 1_000_000
# A packet that was sent later than it came, by more: the host's clock has jumped since it last told it.
_EARLY_NS = 250_000_000
# One that was sent so long ago has waited for the network, or that clock has jumped back.
_LATE_NS = 30_000_000_000


class Translation:
    def __init__(self) -> None:
        self.clock = ClockOffset()
        self._picture, self._sound = _Slew(self.clock), _Slew(self.clock)

    def hear(self, told: ClockTold, answered_ns: int) -> None:
        """Raises ClockJumped."""
        try:
            self.clock.add(
                asked_ns=told.asked_ns, heard_ns=told.heard_ns, told_ns=told.told_ns, answered_ns=answered_ns
            )
        except ValueError as exc:
            raise ClockJumped(f"the clock of its host can't be: {exc}") from exc

    def to_gateway(self, message: Message, now_ns: int) -> Message:
        """Raises ClockJumped."""
        match message:
            case VideoPacket():
                return self._video(message, now_ns)
            case AudioPacket():
                self._sound.follow()
                return replace(message, pts=message.pts - _ticks(self._sound.offset_ns, AUDIO_CLOCK_HZ))
        return message

    def to_host(self, message: Message) -> Message:
        match message:
            case WorkerJob():
                return replace(
                    message,
                    video_after=_later(message.video_after, self._picture.offset_ns, VIDEO_CLOCK_HZ),
                    sound_after=_later(message.sound_after, self._sound.offset_ns, AUDIO_CLOCK_HZ),
                )
            case PublishedData():
                return replace(message, arrival_ns=message.arrival_ns + self.clock.offset_ns)
        return message

    def _video(self, packet: VideoPacket, now_ns: int) -> VideoPacket:
        if packet.rendition == UPSCALED:  # the others of a frame follow it, and have the same times
            self._picture.follow()
        offset_ns = self._picture.offset_ns
        sent_ns = packet.sent_ns - self.clock.offset_ns
        if not -_LATE_NS < sent_ns - now_ns < self.clock.error_ns + _EARLY_NS:
            raise ClockJumped(
                f"the clock of its host jumped: a frame was sent {(sent_ns - now_ns) / 1e9:+.3f} s from now"
            )
        # Within the error of the estimate: nothing comes before it was sent.
        sent_ns = min(sent_ns, now_ns)
        return replace(
            packet,
            pts=packet.pts - _ticks(offset_ns, VIDEO_CLOCK_HZ),
            arrival_ns=min(packet.arrival_ns - self.clock.offset_ns, sent_ns),
            sent_ns=sent_ns,
        )


class _Slew:
    """An offset that goes after the estimate in small steps."""

    def __init__(self, clock: ClockOffset) -> None:
        self._clock = clock
        self._offset_ns: int | None = None
        self._follows = False

    @property
    def offset_ns(self) -> int:
        if self._offset_ns is None:
            self._offset_ns = self._clock.offset_ns
        return self._offset_ns

    def follow(self) -> None:
        """One step, where it is needed."""
        apart_ns = self._clock.offset_ns - self.offset_ns
        self._follows = abs(apart_ns) > (_STEP_NS if self._follows else _FOLLOWED_NS)
        if self._follows:
            self._offset_ns = self.offset_ns + max(-_STEP_NS, min(_STEP_NS, apart_ns))


def _ticks(time_ns: int, hz: int) -> int:
    return round(time_ns * hz / 1_000_000_000)


def _later(ticks: int | None, offset_ns: int, hz: int) -> int | None:
    return None if ticks is None else ticks + _ticks(offset_ns, hz)
