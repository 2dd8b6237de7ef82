"""Other gateways that subscribe to a stream's packets, as one of its sinks."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from server.gateway.figures.stream_metrics import StreamMetrics
from server.wire.hello import Viewers
from server.wire.messages import AudioPacket, Message, Opened, Rendition, VideoPacket

# Of each rendition, and of the sound in both codecs, as in a viewer's rings: behind by more, its viewers see
# the present sooner by skipping.
_RING_FRAMES, _RING_SOUNDS = 64, 256


class Subscriber:
    """One gateway: what it is to be sent waits here. It gets the renditions that it watches, each from a key
    frame on, and the sound with them."""

    def __init__(self, *, on_need_keyframe: Callable[[], None], on_drop: Callable[[int], None]) -> None:
        self.over = False  # nothing more is to be sent
        self.viewers = Viewers(whep=0, hls=0)  # that it has, as it last said
        self._on_need_keyframe = on_need_keyframe
        self._on_drop = on_drop
        self._watched: frozenset[Rendition] = frozenset()
        self._to_begin: frozenset[Rendition] = frozenset()  # with their next key frame
        self._waiting: deque[Message] = deque()
        self._frames = self._sounds = 0  # of these
        self._changed = asyncio.Event()

    def watch(self, renditions: Collection[Rendition]) -> None:
        new = frozenset(renditions) - self._watched
        self._watched = frozenset(renditions)
        self._to_begin = (self._to_begin | new) & self._watched
        if new:
            self._on_need_keyframe()

    async def next(self, patience_s: float) -> list[Message]:
        """All that waits; nothing where nothing comes for so long, or at the end."""
        try:
            async with asyncio.timeout(patience_s):
                await self._changed.wait()
        except TimeoutError:
            return []
        taken = list(self._waiting)
        self._waiting.clear()
        self._frames = self._sounds = 0
        if not self.over:
            self._changed.clear()
        return taken

    def say(self, message: Message) -> None:
        self._waiting.append(message)
        self._changed.set()

    def video(self, packet: VideoPacket) -> None:
        name = packet.rendition
        if name not in self._watched:
            return
        if self._frames >= _RING_FRAMES * len(self._watched):
            self._skip()
        if name in self._to_begin:
            if not packet.keyframe:
                return
            self._to_begin -= {name}
        self._frames += 1
        self.say(packet)

    def audio(self, packet: AudioPacket) -> None:
        if not self._watched:
            return
        if self._sounds >= _RING_SOUNDS:
            self._skip()
        self._sounds += 1
        self.say(packet)

    def end(self) -> None:
        self.over = True
        self._changed.set()

    def _skip(self) -> None:
        """Its connection is too slow: it goes on at the next key frame."""
        if self._frames:
            self._on_drop(self._frames)
        words = [word for word in self._waiting if not isinstance(word, VideoPacket | AudioPacket)]
        self._waiting = deque(words)
        self._frames = self._sounds = 0
        self._to_begin = self._watched
        self._on_need_keyframe()


class RelaySink:
    def __init__(
        self,
        *,
        metrics: StreamMetrics,
        on_need_keyframe: Callable[[], None],
        on_drop: Callable[[int], None],
    ) -> None:
        self.need_keyframe = on_need_keyframe
        self.has_ended = False
        self._metrics = metrics
        self._on_drop = on_drop
        self._opened: Opened | None = None
        self._subscribers: list[Subscriber] = []

    @contextmanager
    def subscriber(self) -> Iterator[Subscriber]:
        subscriber = Subscriber(on_need_keyframe=self.need_keyframe, on_drop=self._on_drop)
        self._subscribers.append(subscriber)
        self._metrics.subscribers(len(self._subscribers))
        if self._opened is not None:
            subscriber.say(self._opened)
        if self.has_ended:
            subscriber.end()
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            self._metrics.subscribers(len(self._subscribers))

    @property
    def viewers(self) -> Viewers:
        """Of all other gateways."""
        counts = [subscriber.viewers for subscriber in self._subscribers]
        return Viewers(whep=sum(count.whep for count in counts), hls=sum(count.hls for count in counts))

    def opened(self, opened: Opened) -> None:
        self._opened = opened
        for subscriber in self._subscribers:
            subscriber.say(opened)

    def video(self, packet: VideoPacket) -> None:
        for subscriber in self._subscribers:
            subscriber.video(packet)

    def audio(self, packet: AudioPacket) -> None:
        for subscriber in self._subscribers:
            subscriber.audio(packet)

    def interrupted(self) -> None:
        """To the others their worker is gone, too: they subscribe again, for what the next one sends."""
        for subscriber in self._subscribers:
            subscriber.end()

    def ended(self) -> None:
        self.has_ended = True
        self.interrupted()
