"""Where a stream is pushed to."""

import asyncio
from collections.abc import Sequence

from server.gateway.figures.metrics import StreamMetrics
from server.gateway.figures.views import PushView
from server.gateway.hls.segments import Part, Segment
from server.gateway.push.pusher import Pusher
from server.gateway.streams.events import Events


class StreamPushes:
    """One push for each address that is wanted."""

    def __init__(self, stream: str, metrics: StreamMetrics, events: Events) -> None:
        self._stream = stream
        self._metrics = metrics
        self._events = events
        self._pushers: dict[str, Pusher] = {}
        self._ending: list[Pusher] = []

    def wanted(self, addresses: Sequence[str]) -> None:
        for address in set(self._pushers) - set(addresses):
            self._end(address)
        for address in addresses:
            if address not in self._pushers:
                pusher = Pusher(self._stream, address, on_change=self._on_change)
                self._pushers[address] = pusher
                self._metrics.push(pusher.target, connected=False)

    def part(self, segment: Segment, part: Part) -> None:
        for pusher in self._pushers.values():
            pusher.part(segment, part)

    def show(self) -> list[PushView]:
        return [
            PushView(target=p.target, connected=p.connected, reason=p.reason, restarts=p.restarts)
            for p in self._pushers.values()
        ]

    def end(self) -> None:
        for address in list(self._pushers):
            self._end(address)

    async def close(self) -> None:
        self.end()
        await asyncio.gather(*(pusher.close() for pusher in self._ending))

    def _end(self, address: str) -> None:
        pusher = self._pushers.pop(address)
        pusher.end()
        self._ending = [*(p for p in self._ending if not p.ended), pusher]
        self._metrics.no_push(pusher.target)

    def _on_change(self, pusher: Pusher) -> None:
        self._metrics.push(pusher.target, connected=pusher.connected)
        facts = {"target": pusher.target, "connected": pusher.connected, "reason": pusher.reason}
        self._events.tell("push", self._stream, **facts)
