"""The settings read again while the service runs: what can change does, under the same viewers."""

import asyncio
from collections.abc import Iterable

from server.gateway.auth.guard import Guard
from server.gateway.errors import GatewayError, StreamNotFound
from server.gateway.events import Events
from server.gateway.routes.whep import Sessions
from server.gateway.routes.whip import Publishers
from server.gateway.streams.strangers import Strangers
from server.gateway.streams.streams import Streams
from server.settings import Settings, StreamSettings
from server.wire.logs import get_logger

log = get_logger(__name__)

# What is read only once, at the start.
_FIXED_TABLES = ("server", "webrtc", "gpu", "hls", "recording", "tracing")
_FIXED_LIMITS = (
    "max_connections",
    "max_connections_per_address",
    "client_timeout_s",
    "max_header_bytes",
    "max_body_bytes",
    "hls_requests_per_s",
    "failed_logins_per_min",
    "feedback_keyframe_every_s",
)


class Reloader:
    """Gives every part that can take them the new settings; one time after the other."""

    def __init__(
        self,
        settings: Settings,
        *,
        streams: Streams,
        strangers: Strangers,
        sessions: Sessions,
        publishers: Publishers,
        events: Events,
        guard: Guard,
    ) -> None:
        self._settings = settings
        self._streams = streams
        self._strangers = strangers
        self._sessions = sessions
        self._publishers = publishers
        self._events = events
        self._guard = guard
        self._reloading = asyncio.Lock()

    async def reload(self, wanted: Settings) -> None:
        """Raises ValueError, with nothing changed, where keys of [auth] can't be read."""
        async with self._reloading:
            if self._streams.closing:
                return
            before = self._settings
            settings = _with_fixed(wanted, before)
            if settings.auth != before.auth or (settings.auth and settings.auth.jwt):
                self._guard.reload(settings.auth)  # the JWT keys may be others in the same file
                self._events.end_all()
            self._settings = settings
            self._streams.settings = self._sessions.settings = self._publishers.settings = settings
            self._events.limits = settings.limits
            if settings.log.level != before.log.level:
                self._streams.set_log_level(settings.log.level)
            if fixed := _differing(wanted, settings):
                log.warning("settings need a restart", keys=fixed)
            await self._reload_streams(before.streams, settings.streams)
            await self._strangers.reload(settings)
            log.info("settings read")

    async def _reload_streams(
        self, before: Iterable[StreamSettings], wanted: tuple[StreamSettings, ...]
    ) -> None:
        olds = {stream.id: stream for stream in before}
        for gone in olds.keys() - {stream.id for stream in wanted}:
            if not self._strangers.made(gone):
                await self._delete(gone)
        for stream in wanted:
            try:
                await self._change_or_create(stream, olds.get(stream.id))
            except GatewayError as exc:
                log.error("stream not as in the settings", stream=stream.id, reason=str(exc))

    async def _delete(self, stream: str) -> None:
        try:
            await self._streams.delete(stream)
        except StreamNotFound:
            return  # by the API, before
        log.info("stream left the settings", stream=stream)

    async def _change_or_create(self, stream: StreamSettings, old: StreamSettings | None) -> None:
        if stream.id in self._streams and not self._strangers.made(stream.id):
            if (await self._streams.change(stream, None)).new_worker:
                log.info("stream changed by the settings", stream=stream.id)
        elif stream != old:  # one that the API has deleted stays so until its settings are others
            self._streams.create(stream)


def _with_fixed(wanted: Settings, before: Settings) -> Settings:
    """These, but for what can't change at run time."""
    limits = wanted.limits.model_copy(update={name: getattr(before.limits, name) for name in _FIXED_LIMITS})
    log = before.log.model_copy(update={"level": wanted.log.level})
    tables = {name: getattr(before, name) for name in _FIXED_TABLES}
    return wanted.model_copy(update={**tables, "limits": limits, "log": log})


def _differing(wanted: Settings, settings: Settings) -> list[str]:
    """The keys that are not as they are wanted."""
    names = []
    for table in (*_FIXED_TABLES, "limits", "log"):
        want, have = getattr(wanted, table), getattr(settings, table)
        keys = type(want).model_fields
        names += [f"{table}.{key}" for key in keys if getattr(want, key) != getattr(have, key)]
    return names
