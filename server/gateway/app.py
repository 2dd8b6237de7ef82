"""The gateway's ASGI application: every part made here, wired here, and closed here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.shipped import zoo
from server.gateway import errors
from server.gateway.access_log import AccessLog
from server.gateway.auth.guard import Guard
from server.gateway.browsers import KnownHosts, PlayerCors, SafeHeaders
from server.gateway.events import Events
from server.gateway.figures.metrics import Metrics
from server.gateway.limits.bodies import BodyLimit
from server.gateway.limits.refusals import Refusals
from server.gateway.limits.requests import RequestLimits
from server.gateway.placement import Cluster, Placement
from server.gateway.placement.capacity import Capacity
from server.gateway.placement.cpu import IdleCores
from server.gateway.publish.doors import Doors
from server.gateway.record.archive import Archive
from server.gateway.record.dvr import Dvr
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.record.tidier import Tidier
from server.gateway.record.uploader import Uploader
from server.gateway.reload import Reloader
from server.gateway.routes import (
    api,
    health,
    hls,
    log_level,
    nodes,
    recordings,
    snapshots,
    viewers,
    whep,
    whip,
)
from server.gateway.routes import events as event_routes
from server.gateway.routes.elsewhere import AtHomeElsewhere
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.kept import KeptStreams
from server.gateway.streams.room import Room
from server.gateway.streams.strangers import Strangers
from server.gateway.streams.streams import Streams
from server.gateway.webrtc.ice import Network
from server.settings import Settings
from server.settings import Tracing as TracingSettings

if TYPE_CHECKING:  # OpenTelemetry and httpx are of the extras `otel` and `cluster`
    from server.gateway.figures.tracing import Tracing
    from server.gateway.routes.others import Others
    from server.gateway.routes.relaying import Relaying

WEB = Path(__file__).parent / "web"
# Asked for anew each time, or a browser would mix modules of two versions.
_PAGE_HEADERS = {"Cache-Control": "no-cache"}


class Gateway:
    """The application, and what whoever runs it says to it beside requests."""

    def __init__(
        self,
        app: ASGIApp,
        streams: Streams,
        sessions: whep.Sessions,
        reloader: Reloader,
        fleet: Fleet | None,
        relaying: "Relaying | None",
    ) -> None:
        self.relaying = relaying
        self._app = app
        self._reloader = reloader
        self._streams = streams
        self._sessions = sessions
        self._fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def gateways(self) -> set[str]:
        """Addresses of the other gateways of the cluster, as they are now."""
        return set() if self._fleet is None else self._fleet.addresses()

    async def reload(self, settings: Settings) -> None:
        """Takes what can change of these while it runs, and logs what can't. Raises ValueError, with nothing
        changed, where keys of [auth] can't be read."""
        await self._reloader.reload(settings)

    async def drain(self) -> None:
        """Lets nobody in any more and tells everyone that it is over; returns once all have been told. Other
        gateways of the cluster take the streams over meanwhile."""
        if self._fleet is not None:
            await self._fleet.close()
        await asyncio.gather(self._streams.drain(), self._sessions.end())


def create_app(
    settings: Settings,
    placement: Placement,
    metrics: Metrics | None = None,
    capacity: Capacity | None = None,
    kept: KeptStreams | None = None,
    cluster: Cluster | None = None,
    fleet: Fleet | None = None,
) -> Gateway:
    """An application whose lifespan starts the settings' streams and ends every stream and viewer.

    `metrics` are given where somebody else serves them, too. Without `capacity` no stream is refused for want
    of CPU time; `kept` streams of the API are started as well. `cluster`: whose
    machines the workers are on, where it isn't this one; `fleet`: this gateway among those of the cluster.
    Raises ValueError where something that the settings ask for isn't installed or can't be had.
    """
    metrics = metrics or Metrics()
    metrics.watch_gpus(placement.gpu_slots)
    refusals = Refusals(metrics.count_refusal)
    events = Events(settings.limits, refusals)
    doors = Doors(settings.limits, refusals)
    archive = index = uploader = tidier = None
    record_threads = RecordThreads()
    if settings.recording.folder is not None:
        archive = Archive(settings.recording)
        index, tidier = Index(archive), Tidier(archive)
        if archive.remote is not None:
            upload = uploader = Uploader(archive, index, archive.remote)
            metrics.watch_uploads(lambda: upload.state.waiting_bytes, lambda: bool(upload.state.reason))
        metrics.watch_disk(lambda: archive.free_bytes, settings.recording.free_bytes)
    tracing = _tracing(settings.tracing)
    streams = Streams(settings, placement, doors, metrics, events, capacity, archive, tracing, cluster)
    strangers = Strangers(settings, streams, kept, fleet)
    network = Network(settings.webrtc)
    sessions = whep.Sessions(settings, streams, network, refusals)
    publishers = whip.Publishers(settings, streams, network, refusals)
    path_key = None if fleet is None else partial(fleet.key, "hls paths")
    guard = Guard(settings.auth, settings.limits, refusals, path_key)
    others = _others(fleet)
    relaying = _relaying(fleet, settings, streams)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if relaying is not None:
            await relaying.open()
        if fleet is not None:
            await fleet.join()
        for stream in settings.streams:
            if fleet is None or await fleet.claim_of_settings(stream, datetime.now(UTC)):
                streams.create(stream)
        await strangers.restore()
        if tidier is not None:
            tidier.start()
        if fleet is not None:
            fleet.start(strangers.follow_homes)
        if uploader is not None:
            uploader.start()
        tasks = [asyncio.create_task(streams.govern(Room(IdleCores())))]
        tasks.append(asyncio.create_task(sessions.measure()))
        if capacity is not None:
            models = [stream.model for stream in (settings.defaults, *settings.streams)]
            tasks.append(asyncio.create_task(capacity.learn([m for m in models if m in zoo()])))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if fleet is not None:
                await fleet.close()
            await streams.close()
            if relaying is not None:
                await relaying.close()
            if tidier is not None:
                await asyncio.to_thread(tidier.close)
            if uploader is not None:
                await asyncio.to_thread(uploader.close)
            record_threads.close()
            await asyncio.gather(sessions.end(), publishers.end())
            network.close()
            await placement.close()
            if others is not None:
                await others.close()
            if kept is not None:
                kept.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    # The documentation pages of FastAPI load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(
        title="livesr",
        summary="Live video super-resolution",
        version=version("livesr"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=errors.OF_EVERY_ROUTE,
        telemetry=tracing.of_calls() if tracing else {"tracing": False, "metrics": False, "logs": False},
    )
    # The last one comes first.
    if relaying is not None:
        relaying.install(app, guard)
    elif fleet is not None:
        app.add_middleware(AtHomeElsewhere, fleet=fleet, guard=guard)
    app.add_middleware(PlayerCors, server=settings.server)
    app.add_middleware(BodyLimit, max_bytes=settings.limits.max_body_bytes)
    app.add_middleware(RequestLimits, limits=settings.limits, refusals=refusals)
    app.add_middleware(KnownHosts, server=settings.server, refusals=refusals)
    errors.install(app)
    app.include_router(api.router(streams, strangers, guard, others))
    app.include_router(snapshots.router(streams, guard))
    app.include_router(recordings.router(archive, index, uploader, record_threads, guard))
    app.include_router(nodes.router(cluster, guard))
    app.include_router(event_routes.router(streams, events, guard))
    prefix, folder = (relaying.session_prefix, relaying.player_folder) if relaying else ("", "")
    app.include_router(whep.router(sessions, settings, guard, prefix))
    app.include_router(viewers.router(sessions, guard))
    app.include_router(whip.router(publishers, settings, guard))
    dvr = Dvr(index, settings.hls) if index else None
    app.include_router(hls.router(streams, dvr, record_threads, guard, folder))
    app.include_router(log_level.router(streams, guard))
    app.include_router(health.router(streams, metrics, settings, guard))
    app.mount("/web", _Page(directory=WEB))

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=_PAGE_HEADERS)

    reloader = Reloader(
        settings,
        streams=streams,
        strangers=strangers,
        sessions=sessions,
        publishers=publishers,
        events=events,
        guard=guard,
    )
    first: ASGIApp = SafeHeaders(app, server=settings.server)
    if settings.log.access:
        first = AccessLog(first)
    if relaying is not None:
        first = relaying.first(first)
    return Gateway(first, streams, sessions, reloader, fleet, relaying)


def _others(fleet: Fleet | None) -> "Others | None":
    """Imported where there is a cluster: httpx is of that extra."""
    if fleet is None:
        return None
    from server.gateway.routes.others import Others

    return Others(fleet)


def _relaying(fleet: Fleet | None, settings: Settings, streams: Streams) -> "Relaying | None":
    """Likewise. None where this gateway answers for its own streams alone."""
    if fleet is None or settings.server.streams_elsewhere == "redirect":
        return None
    from server.gateway.routes.relaying import Relaying

    return Relaying(fleet, streams)


def _tracing(settings: TracingSettings) -> "Tracing | None":
    """Imported where it is asked for. Raises ValueError where it isn't installed."""
    if not settings.endpoint:
        return None
    try:
        from server.gateway.figures.tracing import Tracing
    except ModuleNotFoundError as exc:
        missing = f"tracing.endpoint={settings.endpoint!r}: needs {exc.name}: pip install 'livesr[otel]'"
        raise ValueError(missing) from exc
    return Tracing(settings)


class _Page(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response
