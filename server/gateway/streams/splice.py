"""Where one worker's pictures end and the next one's begin: at a key frame, none lost, none shown twice."""

import time
from collections import deque
from collections.abc import Callable

from server.wire.messages import (
    AUDIO_CLOCK_HZ,
    UPSCALED,
    VIDEO_CLOCK_HZ,
    AudioCodec,
    AudioPacket,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    Message,
    Opened,
    VideoPacket,
)

# Viewers wait for the next worker, where it is behind, for no longer than this; then it is tried again.
HELD_S = 2.0
# The present worker has nothing to say before the cut: it isn't waited for.
QUIET_S = 0.5
_SOUNDS = 512  # of the next worker, some seconds in both codecs
_KEPT_WORDS = 256


class Splice:
    """Both workers have the same frames at the same times, to within half a frame. The next one begins once
    its engine is there.

    Where it is ahead, the present one goes on up to the key frame that the next begins with. Where it is
    behind, the present one is held until the next has caught up; then a key frame is asked of the next."""

    def __init__(
        self,
        *,
        deliver: Callable[[Message], None],
        request_keyframe: Callable[[], object],
        on_switch: Callable[[], None],
        stands_in: bool = True,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_switch` is called in between: after the last message of the present worker, before the first
        of the next. `stands_in`: what upscales in the place of an engine that can't be had will do."""
        self.done = False
        self.last_word = ""  # why the next worker can't
        self.holds = 0  # so often viewers had to wait
        self._deliver = deliver
        self._request_keyframe = request_keyframe
        self._on_switch = on_switch
        self._stands_in = stands_in
        self._clock_s = clock_s
        self._shown: int | None = None  # time of the present worker's last picture
        self._heard_s = clock_s()  # it, last
        self._sound_ends: dict[AudioCodec, int] = {}
        self._held: list[Message] | None = None
        self._held_since_s = 0.0
        self._asked = False  # for a key frame, in this hold
        self._words: deque[Message] = deque(maxlen=_KEPT_WORDS)
        self._sounds: deque[AudioPacket] = deque(maxlen=_SOUNDS)
        self._pictures: list[VideoPacket] = []  # of the next worker, from its last key frame on
        self._cut: int | None = None  # just before the key frame that the next worker begins with
        self.loading = False  # the next worker's engine
        self._opened = self._ready = self._given_up = False

    def from_present(self, message: Message) -> None:
        if self.done:
            return
        match message:
            case VideoPacket(rendition=rendition, pts=pts) if self._cut is not None and pts >= self._cut:
                if rendition == UPSCALED:  # all of what was before has come
                    self._switch()
            case VideoPacket() | AudioPacket() if self._held is not None:
                self._held.append(message)
            case _:
                self._pass_on(message)
        self._heard_s = self._clock_s()

    def from_next(self, message: Message) -> None:
        if self._given_up:
            return
        match message:
            case AudioPacket(codec=codec, pts=pts):
                if not self.done:
                    self._sounds.append(message)
                elif pts >= self._sound_ends.get(codec, pts):
                    self._deliver(message)
            case _ if self.done:
                self._deliver(message)
            case VideoPacket():
                self._on_picture(message)
            case _:
                self._on_word(message)

    def tick(self) -> None:
        """What time alone decides; called now and then."""
        now_s = self._clock_s()
        if self.done:
            return
        if self._cut is not None and now_s - self._heard_s > QUIET_S:
            self._switch()
        elif self._held is not None and now_s - self._held_since_s > HELD_S:
            self._release()

    def give_up(self) -> None:
        """Nothing is taken over: the present worker goes on, with all that was held of it."""
        self._cut = None
        self._release()
        self._given_up = True

    def _on_word(self, message: Message) -> None:
        self._words.append(message)
        match message:
            case JobImpossible(reason=reason):
                self.last_word = reason
            case Opened():
                self._opened = True
            case EngineLoad(state="failed", detail=reason) if not self._stands_in:
                self.last_word = reason
            case EngineLoad(state=state):
                self.loading = state == "loading"
            case Heartbeat():  # what it loads, it says before
                self._ready = self._opened and not self.loading and not self.last_word

    def _on_picture(self, packet: VideoPacket) -> None:
        first = packet.rendition == UPSCALED
        if first and packet.keyframe and self._cut is None:
            self._pictures.clear()
        if self._pictures or (first and packet.keyframe):
            self._pictures.append(packet)
        if not first or not self._ready or self._cut is not None or packet.slate:
            return
        early = packet.pts - packet.duration // 2
        behind = self._shown is not None and early <= self._shown
        if packet.keyframe and not behind:
            self._cut = early
            self._let_go_before_cut()
        elif behind and self._held is None and packet.keyframe:
            self._held, self._held_since_s, self._asked = [], self._clock_s(), False
            self.holds += 1
        elif not behind and self._held is not None and not self._asked:
            self._asked = True
            self._request_keyframe()

    def _let_go_before_cut(self) -> None:
        """Of what was held, all that is before the cut; the cut itself may have been among it."""
        held, self._held = self._held or [], None
        for message in held:
            self.from_present(message)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        match message:
            case VideoPacket(rendition=rendition, pts=pts) if rendition == UPSCALED:
                self._shown = pts
            case AudioPacket(codec=codec, pts=pts, duration=duration):
                self._sound_ends[codec] = pts + duration
        self._deliver(message)

    def _switch(self) -> None:
        assert self._cut is not None
        self.done = True
        self._on_switch()
        for word in self._words:
            self._deliver(word)
        cut = self._cut * AUDIO_CLOCK_HZ // VIDEO_CLOCK_HZ
        for sound in self._sounds:
            if sound.pts >= self._sound_ends.get(sound.codec, cut):
                self._deliver(sound)
        for picture in self._pictures:
            self._deliver(picture)
