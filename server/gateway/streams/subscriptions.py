"""Where other gateways of the cluster come for the packets of streams that are at home here."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Iterable

from server.gateway.errors import StreamNotFound
from server.gateway.relay.sink import Subscriber
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.wire.clock import now_ns
from server.wire.door import Door, UnknownVisitor, Visitor
from server.wire.hello import ClockAsk, ClockTold, Hello, Started, Subscribe, Viewers, WorkerGone
from server.wire.messages import Alive, JobImpossible, Message, Rendition, RequestKeyframe, Stop, Watch
from server.wire.renditions import picture_of

_ALIVE_S = 0.1
# A gateway asks for the time three times a second.
_GONE_S = 5.0


class Subscriptions:
    """The door, and a subscription for each gateway and stream. What is relayed here from another home isn't
    passed on again: no packet goes from one gateway to the next more than once."""

    def __init__(self, streams: Streams, fleet: Fleet) -> None:
        self._streams = streams
        self._fleet = fleet
        self._door = Door(admit=self._admit, serve=self._serve, here="this gateway")

    async def open(self) -> None:
        """Raises OSError."""
        await self._door.open(self._fleet.host)
        self._fleet.door = self._door.address

    async def close(self) -> None:
        await self._door.close()

    def _admit(self, hello: Hello) -> None:
        if not hmac.compare_digest(hello.secret, self._fleet.key("packets")):
            raise UnknownVisitor("its secret is not that of the cluster's gateways")

    async def _serve(self, visitor: Visitor, stream: str) -> None:
        """Raises UnknownVisitor, TimeoutError, OSError, ProtocolError."""
        if self._streams.closing:
            raise UnknownVisitor("the service is shutting down")
        try:
            found = self._streams.get(stream)
        except StreamNotFound:
            raise UnknownVisitor(f"stream {stream!r} is not at home here") from None
        with found.outputs.relay.subscriber() as subscriber:
            await _Subscription(visitor, found, subscriber, self._last_word).run()

    def _last_word(self, stream: Stream) -> Message | None:
        """To whom a stream was sent; None where it goes on, with another worker or at another gateway, for
        which its viewers wait."""
        home = self._fleet.home(stream.id)
        has_moved = home is not None and home.gateway != self._fleet.id
        if not stream.outputs.relay.has_ended or self._streams.closing or has_moved:
            return None
        failed = stream.state == "failed"
        return JobImpossible(reason=stream.reason if failed else "it was deleted at its home")


class _Subscription:
    """Until the gateway leaves or the stream ends."""

    def __init__(
        self,
        visitor: Visitor,
        stream: Stream,
        subscriber: Subscriber,
        last_word: Callable[[Stream], Message | None],
    ) -> None:
        self._visitor = visitor
        self._stream = stream
        self._subscriber = subscriber
        self._last_word = last_word
        self._watched = contextlib.ExitStack()
        self._telling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises TimeoutError, OSError, ProtocolError."""
        try:
            going_on = True
            while going_on:
                async with asyncio.timeout(_GONE_S):
                    message = await self._visitor.next()
                going_on = message is not None and self._obey(message)
        finally:
            self._watched.close()
            if self._telling is not None:
                self._telling.cancel()
                await asyncio.wait([self._telling])

    def _obey(self, message: Message) -> bool:
        """False where the gateway wants nothing more."""
        match message:
            case ClockAsk(asked_ns=asked_ns):
                at_ns = now_ns()
                told = ClockTold(
                    asked_ns=asked_ns, heard_ns=at_ns, told_ns=at_ns, at_work=True, idle_cores=0.0
                )
                self._visitor.say(told)
            case Subscribe() if self._telling is None:
                self._visitor.say(Started(isolated=False))
                self._telling = asyncio.create_task(self._tell())
            case Watch(renditions=renditions):
                self._watch(renditions)
            case Viewers():
                self._subscriber.viewers = message
            case RequestKeyframe():
                self._stream.outputs.relay.need_keyframe()
            case Stop():
                self._visitor.say(WorkerGone(how="its gateway has left"))
                return False
        return True

    def _watch(self, renditions: Iterable[Rendition]) -> None:
        """The stream makes what is watched there, as if somebody watched it here."""
        known = self._stream.outputs.webrtc.renditions
        wanted = [name for name in renditions if picture_of(name) in known]
        before, self._watched = self._watched, contextlib.ExitStack()
        for name in wanted:
            self._watched.enter_context(self._stream.audience.glance(name))
        before.close()
        self._subscriber.watch(wanted)

    async def _tell(self) -> None:
        """Waits for nobody but this gateway."""
        writer, alive_s = self._visitor.writer, 0.0
        with contextlib.suppress(OSError):
            while True:
                for message in await self._subscriber.next(_ALIVE_S):
                    self._visitor.say(message)
                if self._subscriber.over:
                    break
                if time.monotonic() - alive_s >= _ALIVE_S:
                    alive_s = time.monotonic()
                    self._visitor.say(Alive())
                await writer.drain()
            if (last := self._last_word(self._stream)) is not None:
                self._visitor.say(last)
            await writer.drain()
        writer.close()
