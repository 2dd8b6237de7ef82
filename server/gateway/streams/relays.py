"""Streams that are at home at other gateways of the cluster, for as long as they are watched at this one."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from server.gateway.errors import HomesUnknown
from server.gateway.placement.home import HomePlacement
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.settings import StreamSettings
from server.wire.hello import Viewers
from server.wire.logs import get_logger
from server.wire.messages import UPSCALED

log = get_logger(__name__)

_LOOK_S = 0.25
LINGER_S = 10.0  # the last viewer may come back
# Nobody is its home: it has been deleted, unless another gateway has it in its settings and begins with it.
_HOMELESS_S = 5.0
# For so long who comes is told that it has ended; then its home is asked again.
_ENDED_S = 2.0
# So long the first viewer waits for a picture, by which its answer is made, before it is answered anyway.
_FIRST_PICTURE_S = 2.0
_GLANCE_S = _FIRST_PICTURE_S + 1.0


@dataclass(slots=True)
class _Relay:
    stream: Stream
    placement: HomePlacement
    home: str  # the gateway
    begun_s: float
    wanted_s: float  # at last
    homeless_s: float = 0.0  # for so long
    failed_s: float = 0.0  # likewise
    glance: ExitStack = field(default_factory=ExitStack)  # until the first viewer watches


class Relays:
    """One subscription for each stream, however many viewers it has here; all of one event loop."""

    def __init__(self, streams: Streams, fleet: Fleet) -> None:
        self._streams = streams
        self._fleet = fleet
        self._relays: dict[str, _Relay] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Streams are the registry's to end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def ensure(self, stream: str) -> None:
        """Has that stream here, for a viewer who comes; returns at the first picture, or when it's known that
        there is none, or after a while. Raises LimitReached, or HomesUnknown where it has been at home here
        until now."""
        relay = self._relays.get(stream) if self._streams.is_relayed(stream) else None
        home = self._fleet.home(stream)
        if relay is None and home is not None and home.gateway != self._fleet.id:
            if self._streams.is_leaving(stream):
                raise HomesUnknown(f"stream {stream!r} is on its way from one home to another")
            relay = self._begin(stream, home.gateway)
        if relay is not None:
            relay.wanted_s = time.monotonic()
            await self._first_picture(relay)

    def _begin(self, name: str, home: str) -> _Relay:
        """Raises LimitReached while the service shuts down."""
        source = f"{self._fleet.url_of(home)}/api/streams/{name}"
        settings = StreamSettings(id=name, source=source, upscale_when="watched")
        placement, now_s = HomePlacement(self._fleet.ticket), time.monotonic()
        stream = self._streams.relay(settings, placement)
        relay = self._relays[name] = _Relay(stream, placement, home, begun_s=now_s, wanted_s=now_s)
        relay.glance.enter_context(stream.audience.glance(UPSCALED))
        return relay

    async def _first_picture(self, relay: _Relay) -> None:
        stream, until_s = relay.stream, relay.begun_s + _FIRST_PICTURE_S
        pictures = stream.outputs.pictures
        while pictures.find(UPSCALED) is None and stream.state != "failed":
            try:
                async with asyncio.timeout(until_s - time.monotonic()):
                    await pictures.changes()
            except TimeoutError:
                return

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for name, relay in list(self._relays.items()):
                if not self._streams.is_relayed(name):  # it has come home
                    del self._relays[name]
                elif self._is_over(name, relay):
                    del self._relays[name]
                    self._streams.end_relay(name)

    def _is_over(self, name: str, relay: _Relay) -> bool:
        now_s, stream, home = time.monotonic(), relay.stream, self._fleet.home(name)
        if now_s - relay.begun_s > _GLANCE_S:
            relay.glance.close()
        if stream.state == "failed":
            relay.failed_s += _LOOK_S
        if stream.state == "quarantined":  # by a home whose clock jumps, or that talks nonsense
            stream.release()
        viewers = Viewers(whep=stream.figures.whep_viewers, hls=stream.figures.hls_players.count(now_s))
        relay.placement.tell(viewers)
        if viewers.whep or viewers.hls or stream.audience.watches:
            relay.wanted_s = now_s
        if home is None:
            relay.homeless_s += _LOOK_S
        else:
            relay.homeless_s = 0.0
            if home.gateway not in (relay.home, self._fleet.id):
                relay.home = home.gateway
                log.info("stream at home elsewhere", stream=name, gateway=self._fleet.url_of(home.gateway))
                stream.renew()
        return (
            now_s - relay.wanted_s > LINGER_S or relay.homeless_s >= _HOMELESS_S or relay.failed_s >= _ENDED_S
        )
