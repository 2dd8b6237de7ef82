"""The registry: which streams there are."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from server.gateway.errors import LimitReached, StreamExists, StreamNotFound
from server.gateway.events import Events
from server.gateway.figures.metrics import Metrics
from server.gateway.placement import Cluster, Placement
from server.gateway.placement.capacity import Capacity, last_rung
from server.gateway.placement.home import HomePlacement
from server.gateway.publish.doors import Doors
from server.gateway.record.archive import Archive
from server.gateway.streams.moving import Changed
from server.gateway.streams.room import Room
from server.gateway.streams.stream import Stream
from server.gateway.streams.terms import Terms
from server.gateway.streams.wishes import Rooms, network, pixels_per_s, sort_by_machine, wishes
from server.settings import Settings, StreamSettings
from server.wire.logs import LogLevel, set_level
from server.wire.source_policy import SourcePolicy

if TYPE_CHECKING:  # OpenTelemetry is of the extra `otel`
    from server.gateway.figures.tracing import Tracing

_GOVERN_S = 1.0
_LOOK_S = 0.05  # while viewers are told that the service ends


class Streams:
    """Creates, finds and deletes streams; all of one event loop."""

    def __init__(
        self,
        settings: Settings,
        placement: Placement,
        doors: Doors,
        metrics: Metrics,
        events: Events,
        capacity: Capacity | None = None,
        archive: Archive | None = None,
        tracing: "Tracing | None" = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._cluster = cluster
        self.settings = settings
        self._placement = placement
        self._archive = archive
        self._doors = doors
        self._metrics = metrics
        self._tracing = tracing
        self._events = events
        self._streams: dict[str, Stream] = {}
        self._ending: set[str] = set()  # deleted, their workers still there
        # At home at other gateways, and watched at this one.
        self._relayed: dict[str, tuple[Stream, HomePlacement]] = {}
        self._closings: set[asyncio.Task[None]] = set()  # of some that aren't any more
        self._closing = False
        self._capacity = capacity
        metrics.watch_streams(self.free)
        if capacity is not None:
            metrics.watch_capacity(capacity, self.used_cores, self.reserved_cores)

    @property
    def closing(self) -> bool:
        return self._closing

    def __contains__(self, stream: str) -> bool:
        return stream in self._streams

    def all(self) -> list[Stream]:
        return list(self._streams.values())

    def to_view(self) -> list[Stream]:
        """With those that are relayed from their homes."""
        return [*self._streams.values(), *(stream for stream, _ in self._relayed.values())]

    def is_relayed(self, stream: str) -> bool:
        return stream in self._relayed

    def is_leaving(self, stream: str) -> bool:
        """Whether it is still here that has been at home here."""
        return stream in self._streams or stream in self._ending

    def create(
        self,
        settings: StreamSettings,
        policy: SourcePolicy | None = None,
        created: datetime | None = None,
        *,
        waited_for: bool = False,
    ) -> Stream:
        """`policy` binds the source, except that of the settings' own stream; `created`: long ago, by another
        run of the service; `waited_for`: by players of a gateway that is lost, so that it may wait for room
        in the cluster. Raises StreamExists, or LimitReached."""
        limits = self.settings.limits
        if settings.id in self._streams:
            raise StreamExists(f"id={settings.id!r}: there is a stream of that name")
        # The old one still has its metrics, its source's port and its GPU.
        if settings.id in self._ending:
            raise StreamExists(f"id={settings.id!r}: the stream of that name is being deleted")
        self.check_open()
        if len(self._streams) >= limits.max_streams:
            raise LimitReached(f"{len(self._streams)} streams run; limits.max_streams={limits.max_streams}")
        if policy is not None:
            self._check_capacity(settings)
            if not waited_for:
                self._check_cluster(settings)
        if (stream := self._bring_home(settings, policy, created)) is None:
            stream = self._start(settings, policy, created, waited_for=waited_for)
        return stream

    def _start(
        self,
        settings: StreamSettings,
        policy: SourcePolicy | None,
        created: datetime | None,
        *,
        waited_for: bool = False,
    ) -> Stream:
        stream = self._make(settings, policy, created, self._placement, waited_for=waited_for)
        self._streams[stream.id] = stream
        stream.start()
        return stream

    def _make(
        self,
        settings: StreamSettings,
        policy: SourcePolicy | None,
        created: datetime | None,
        placement: Placement,
        *,
        waited_for: bool,
    ) -> Stream:
        return Stream(
            Terms(settings=settings, policy=policy, limits=self.settings.limits),
            created=created,
            waited_for=waited_for,
            hls=self.settings.hls,
            placement=placement,
            archive=self._archive,
            doors=self._doors,
            metrics=self._metrics,
            tracing=self._tracing,
            events=self._events,
        )

    def relay(self, settings: StreamSettings, placement: HomePlacement) -> Stream:
        """A stream for viewers of this gateway, that is at home at another one."""
        self.check_open()
        self._events.elsewhere.add(settings.id)
        stream = self._make(settings, None, None, placement, waited_for=True)
        stream.figures.metrics.relay()
        self._relayed[stream.id] = stream, placement
        stream.start()
        return stream

    def end_relay(self, stream: str) -> None:
        """Its viewers are told the end. Another of its name may begin at once."""
        ended, _ = self._relayed.pop(stream)
        ended.end()
        ended.figures.metrics.forget()
        self._events.elsewhere.discard(stream)
        closing = asyncio.create_task(ended.close())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _bring_home(
        self, settings: StreamSettings, policy: SourcePolicy | None, created: datetime | None
    ) -> Stream | None:
        """The stream that has been relayed until now, under the viewers that it has, with a worker of its own
        from now on."""
        if settings.id not in self._relayed:
            return None
        stream, placement = self._relayed[settings.id]
        if stream.state == "failed":  # its viewers have been told
            self.end_relay(settings.id)
            return None
        del self._relayed[settings.id]
        self._events.elsewhere.discard(stream.id)
        self._streams[stream.id] = stream
        placement.here = self._placement
        stream.figures.metrics.come_home()
        stream.created = created or datetime.now(UTC)
        stream.renew(Terms(settings=settings, policy=policy, limits=self.settings.limits))
        return stream

    async def govern(self, room: Room) -> None:
        """Lets streams step up to larger networks, until cancelled; `room` is this machine's, others have
        their own."""
        loop = asyncio.get_running_loop()
        elsewhere = Rooms()
        while True:
            await asyncio.sleep(_GOVERN_S)
            here, there = sort_by_machine(self.all())
            found = [room.grant(wishes(here), loop.time())]
            found += [elsewhere.of(place).grant(wishes(those), loop.time()) for place, those in there]
            for stream, level in filter(None, found):
                self._streams[stream].step_up(level)

    def set_log_level(self, level: LogLevel) -> None:
        """Of this process and of all workers."""
        set_level(level)
        for stream in self.all():
            stream.tell_log_level()

    def check_open(self) -> None:
        """Raises LimitReached while the service shuts down."""
        if self._closing:
            raise LimitReached("the service is shutting down")

    def _check_cluster(self, settings: StreamSettings) -> None:
        """Raises LimitReached."""
        missing = self._cluster.missing_for(settings.job(self.settings.limits)) if self._cluster else ""
        if missing:
            raise LimitReached(f"full: {missing}")

    def _check_capacity(self, settings: StreamSettings, but: Stream | None = None) -> None:
        """Raises LimitReached for a stream that would not fit even if all (but that one, in whose place it
        comes) were upscaled by the last rungs of their ladders."""
        if self._capacity is None:
            return
        cores, usable = self._capacity.cores, self._capacity.usable_cores
        assumed = self.settings.limits.assumed_pixels_per_s
        needed = self._capacity.cores_for(last_rung(settings), assumed)
        reserved = self.reserved_cores(but)
        if reserved + needed > usable:
            raise LimitReached(
                f"full: {len(self._streams)} streams take {reserved:.2f} of {usable:.2f} cores "
                f"(of {cores:g}) with their smallest networks, and one more {needed:.2f}, by "
                f"limits.assumed_pixels_per_s={assumed:g}"
            )

    def free(self) -> int:
        """How many more of the usual streams would be let in now."""
        limits, capacity = self.settings.limits, self._capacity
        free = 0 if self._closing else limits.max_streams - len(self._streams)
        if slots := self._placement.gpu_slots():
            free = min(free, sum(use.slots - use.used for use in slots))
        if capacity is not None:
            cores = capacity.cores_for(last_rung(self.settings.defaults), limits.assumed_pixels_per_s)
            left = capacity.usable_cores - self.reserved_cores()
            free = min(free, int(left / cores)) if cores else free
        return max(0, free)

    def reserved_cores(self, but: Stream | None = None) -> float:
        """What all, but that one, take when watched and upscaled by the last rungs of their ladders."""
        assert self._capacity is not None
        assumed = self.settings.limits.assumed_pixels_per_s
        return sum(
            self._capacity.cores_for(last_rung(stream.settings), pixels_per_s(stream) or assumed)
            for stream in self.all()
            if stream is not but
        )

    def used_cores(self) -> float:
        """What those that are watched take with the networks that upscale them now."""
        assert self._capacity is not None
        return sum(
            self._capacity.cores_for(network(stream), pixels_per_s(stream))
            for stream in self.all()
            if stream.state == "running"
        )

    def get(self, stream: str) -> Stream:
        """Raises StreamNotFound."""
        try:
            return self._streams[stream]
        except KeyError:
            raise StreamNotFound(f"there is no stream {stream!r}") from None

    def get_to_view(self, stream: str) -> Stream:
        """Also one that is relayed from its home. Raises StreamNotFound."""
        relayed = self._relayed.get(stream)
        return self.get(stream) if relayed is None else relayed[0]

    async def change(
        self,
        settings: StreamSettings,
        policy: SourcePolicy | None,
        *,
        anew: bool = False,
        beside: bool = False,
    ) -> Changed:
        """Changes the stream of that name, where anything differs; one that has failed then starts anew, or
        with `anew` in any case. With `beside` the present worker goes on until the next has taken over, where
        both can run. Raises StreamNotFound, NotChanged, or LimitReached while the service shuts down."""
        self.check_open()
        stream = self.get(settings.id)
        terms = Terms(settings=settings, policy=policy, limits=self.settings.limits)
        failed = stream.state == "failed"
        if stream.terms.are(terms) and not (failed and anew):
            return Changed(new_worker=False, lossless=True)
        if not failed:
            changed = await stream.change(terms, beside=beside)
            self._events.tell("changed", stream.id, restarted=["worker"] if changed.new_worker else [])
            return changed
        if policy is not None:
            self._check_capacity(settings, but=stream)
            self._check_cluster(settings)
        await self.delete(stream.id)
        self._start(settings, policy, stream.created)
        return Changed(new_worker=True, lossless=False)

    async def delete(self, stream: str) -> None:
        """Returns when its worker has ended; raises StreamNotFound."""
        found = self.get(stream)
        del self._streams[stream]
        self._ending.add(stream)
        try:
            await found.close()
        finally:
            self._ending.remove(stream)
        self._events.tell("deleted", stream)

    async def drain(self) -> None:
        """Ends every stream, but keeps what HLS has; returns once every viewer has been told. None can be
        created from here on."""
        self._closing = True
        for stream in self.to_view():
            stream.end()
        self._events.end_all()
        # A player that is gone says nothing, but is forgotten: no event tells of that.
        while not all(stream.all_told for stream in self.to_view()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Ends every stream; none can be created from here on."""
        self._closing = True
        streams = self.to_view()
        self._streams.clear()
        self._relayed.clear()
        await asyncio.gather(*(stream.close() for stream in streams), *self._closings)
