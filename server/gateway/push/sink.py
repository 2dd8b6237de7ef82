"""Where a stream is pushed to, as one of its sinks."""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from server.gateway.events import Events
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.figures.views import PushView
from server.gateway.mp4.fragments import Fragment, Fragments
from server.gateway.push.pusher import Pusher
from server.wire.messages import AudioPacket, Opened, VideoPacket
from server.wire.urls import mask_target


class PushSink:
    """One push for each address that is wanted."""

    def __init__(
        self,
        stream: str,
        *,
        metrics: StreamMetrics,
        events: Events,
        on_need_keyframe: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._metrics = metrics
        self._events = events
        self._on_need_keyframe = on_need_keyframe
        self._fragments = Fragments(lasts_s=0)  # sent on without delay
        self._pushers: dict[str, Pusher] = {}
        self._ending: list[Pusher] = []

    def wanted(self, addresses: Sequence[str]) -> None:
        for address in set(self._pushers) - set(addresses):
            self._end(address)
        for address in addresses:
            if address not in self._pushers:
                pusher = Pusher(
                    self._stream,
                    address,
                    self._target(address),
                    on_change=self._on_change,
                    on_need_keyframe=self._on_need_keyframe,
                )
                self._pushers[address] = pusher
                self._metrics.push(pusher.target, connected=False)
        if not self._pushers:
            self._fragments.interrupted()

    def opened(self, opened: Opened) -> None:
        self._fragments.opened(opened)

    def video(self, packet: VideoPacket) -> None:
        if self._pushers:
            self._send(self._fragments.video(packet))

    def audio(self, packet: AudioPacket) -> None:
        if self._pushers:
            self._fragments.audio(packet)

    def interrupted(self) -> None:
        self._send(self._fragments.interrupted())

    def ended(self) -> None:
        self.interrupted()
        for address in list(self._pushers):
            self._end(address)

    def show(self) -> list[PushView]:
        return [
            PushView(target=p.target, connected=p.connected, reason=p.reason, restarts=p.restarts)
            for p in self._pushers.values()
        ]

    async def close(self) -> None:
        """Returns when no process is left."""
        self.ended()
        await asyncio.gather(*(pusher.close() for pusher in self._ending))

    def _target(self, address: str) -> str:
        """Where several keys go to one server, a number tells them apart."""
        shown, taken = mask_target(address), {pusher.target for pusher in self._pushers.values()}
        numbered = (f"{shown} ({n})" for n in itertools.count(2))
        return next(name for name in itertools.chain([shown], numbered) if name not in taken)

    def _send(self, fragments: Sequence[Fragment]) -> None:
        for fragment in fragments:
            for pusher in self._pushers.values():
                pusher.fragment(fragment)

    def _end(self, address: str) -> None:
        pusher = self._pushers.pop(address)
        pusher.end()
        self._ending = [*(p for p in self._ending if not p.ended), pusher]
        self._metrics.no_push(pusher.target)

    def _on_change(self, pusher: Pusher) -> None:
        self._metrics.push(pusher.target, connected=pusher.connected)
        facts = {"target": pusher.target, "connected": pusher.connected, "reason": pusher.reason}
        self._events.tell("push", self._stream, **facts)
