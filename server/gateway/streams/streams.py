"""The registry: which streams there are."""

import asyncio

from server.gateway.errors import LimitReached, StreamExists, StreamNotFound
from server.gateway.figures.metrics import Metrics
from server.gateway.placement import Placement
from server.gateway.publish.doors import Doors
from server.gateway.streams.room import Room
from server.gateway.streams.stream import Stream
from server.settings import Settings, StreamSettings
from server.wire.source_policy import SourcePolicy

_GOVERN_S = 1.0


class Streams:
    """Creates, finds and deletes streams; all of one event loop."""

    def __init__(self, settings: Settings, placement: Placement, doors: Doors, metrics: Metrics) -> None:
        self._settings = settings
        self._placement = placement
        self._doors = doors
        self._metrics = metrics
        self._streams: dict[str, Stream] = {}
        self._ending: set[str] = set()  # deleted, their workers still there
        self._closing = False

    @property
    def closing(self) -> bool:
        return self._closing

    def all(self) -> list[Stream]:
        return list(self._streams.values())

    def create(self, settings: StreamSettings, policy: SourcePolicy | None = None) -> Stream:
        """`policy` binds the source, except that of the settings' own stream. Raises StreamExists, or
        LimitReached."""
        limits = self._settings.limits
        if settings.id in self._streams:
            raise StreamExists(f"id={settings.id!r}: there is a stream of that name")
        # The old one still has its metrics, its source's port and its GPU.
        if settings.id in self._ending:
            raise StreamExists(f"id={settings.id!r}: the stream of that name is being deleted")
        if self._closing:
            raise LimitReached("the service is shutting down")
        if len(self._streams) >= limits.max_streams:
            raise LimitReached(f"{len(self._streams)} streams run; limits.max_streams={limits.max_streams}")
        stream = Stream(
            settings,
            policy=policy,
            limits=limits,
            hls=self._settings.hls,
            placement=self._placement,
            doors=self._doors,
            metrics=self._metrics,
        )
        self._streams[stream.id] = stream
        stream.start()
        return stream

    async def govern(self, room: Room) -> None:
        """Lets streams step up to larger networks, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_GOVERN_S)
            wishes = [wish for stream in self.all() if (wish := stream.wish()) is not None]
            if granted := room.grant(wishes, loop.time()):
                stream, level = granted
                self._streams[stream].step_up(level)

    def get(self, stream: str) -> Stream:
        """Raises StreamNotFound."""
        try:
            return self._streams[stream]
        except KeyError:
            raise StreamNotFound(f"there is no stream {stream!r}") from None

    async def delete(self, stream: str) -> None:
        """Returns when its worker has ended; raises StreamNotFound."""
        found = self.get(stream)
        del self._streams[stream]
        self._ending.add(stream)
        try:
            await found.close()
        finally:
            self._ending.remove(stream)

    async def close(self) -> None:
        """Ends every stream; none can be created from here on."""
        self._closing = True
        streams = self.all()
        self._streams.clear()
        await asyncio.gather(*(stream.close() for stream in streams))
