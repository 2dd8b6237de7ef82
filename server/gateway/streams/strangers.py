"""Streams that the API makes: bound by `[sources]`, and kept over a restart where there is a file for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from server.gateway.errors import GatewayError, InvalidStream, NotKept, StreamOfSettings
from server.gateway.streams.kept import CantBeKept, KeptStream, KeptStreams
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.settings import Settings, StreamSettings, describe_error
from server.wire.logs import get_logger

log = get_logger(__name__)


class Strangers:
    """One change at a time, so that the file never says something else than what runs."""

    def __init__(self, settings: Settings, streams: Streams, kept: KeptStreams | None) -> None:
        self._settings = settings
        self._streams = streams
        self._kept = kept
        self._known = {stream.id: stream for stream in (kept.at_start if kept else ())}
        self._running: set[str] = set()  # of those; others can't be started, or a stream of the settings can
        self._changing = asyncio.Lock()

    def made(self, stream: str) -> bool:
        """Whether the running stream of that name is one of these."""
        return stream in self._running

    def restore(self) -> None:
        """Starts what was kept. What can't be started stays in the file, for a time when it can, or until it
        is deleted."""
        for stream in self._known.values():
            with _logged(stream.id):
                self._start(stream.id, stream.given, stream.created)

    async def create(self, given: dict[str, Any]) -> Stream:
        """Raises pydantic.ValidationError, InvalidStream, StreamExists, LimitReached or NotKept."""
        async with self._changing:
            stream = self._start(given["id"], given)
            kept = KeptStream(id=stream.id, created=stream.created, given=given)
            try:
                await self._keep(kept)
            except NotKept:
                self._running.remove(stream.id)
                await self._streams.delete(stream.id)
                raise
            self._known[stream.id] = kept
            return stream

    async def change(self, stream: str, changes: dict[str, Any]) -> tuple[Stream, bool]:
        """The stream with these fields in the place of those that it has, and whether its worker is another.
        Raises pydantic.ValidationError, InvalidStream, StreamNotFound, StreamOfSettings, LimitReached or
        NotKept: then it is as it was."""
        async with self._changing:
            self._streams.check_open()
            found = self._streams.get(stream)
            if not self.made(stream):
                raise StreamOfSettings(f"stream {stream!r} is in the settings file: change it there")
            given = self._known[stream].given | changes
            settings = self._checked(given)
            kept = KeptStream(id=stream, created=found.created, given=given)
            await self._keep(kept)
            self._known[stream] = kept
            new_worker = await self._streams.change(settings, self._settings.sources.policy(), anew=True)
            return self._streams.get(stream), new_worker

    async def delete(self, stream: str) -> None:
        """Returns when its worker has ended; raises StreamNotFound or NotKept."""
        async with self._changing:
            known = stream in self._known
            if known:
                await self._forget(stream)
                del self._known[stream]
                self._running.discard(stream)
            if known and not any(stream == other.id for other in self._streams.all()):
                return
            ending = self._streams.delete(stream)
        await ending

    async def reload(self, settings: Settings) -> None:
        """New defaults, limits and `[sources]` count for these, too: what may not be any more ends, but stays
        in the file."""
        async with self._changing:
            self._settings = settings
            for stream in list(self._known.values()):
                with _logged(stream.id):
                    await self._reload(stream)

    async def _reload(self, stream: KeptStream) -> None:
        if not self.made(stream.id):
            self._start(stream.id, stream.given, stream.created)
            return
        try:
            checked = self._checked(stream.given)
        except (ValidationError, InvalidStream):
            self._running.remove(stream.id)
            await self._streams.delete(stream.id)
            raise
        await self._streams.change(checked, self._settings.sources.policy())

    def _start(self, stream: str, given: dict[str, Any], created: datetime | None = None) -> Stream:
        started = self._streams.create(self._checked(given), self._settings.sources.policy(), created)
        self._running.add(stream)
        return started

    def _checked(self, given: dict[str, Any]) -> StreamSettings:
        """The stream with the operator's defaults; raises pydantic.ValidationError or InvalidStream."""
        stream = self._settings.stream(**given)
        try:
            self._settings.check_stranger(stream)
        except ValueError as exc:
            raise InvalidStream(str(exc)) from exc
        return stream

    async def _keep(self, stream: KeptStream) -> None:
        if self._kept is not None:
            try:
                await self._kept.put(stream)
            except CantBeKept as exc:
                log.error("stream not kept", stream=stream.id, reason=str(exc))
                raise NotKept("the stream can't be kept over a restart; the log says why") from exc

    async def _forget(self, stream: str) -> None:
        if self._kept is not None:
            try:
                await self._kept.remove(stream)
            except CantBeKept as exc:
                log.error("stream not deleted", stream=stream, reason=str(exc))
                raise NotKept("the stream can't be deleted for good; the log says why") from exc


@contextmanager
def _logged(stream: str) -> Iterator[None]:
    """A stream that can't be is said, and is no other's fault."""
    try:
        yield
    except ValidationError as exc:
        reason = "; ".join(describe_error(dict(error)) for error in exc.errors())
        log.error("stream not allowed", stream=stream, reason=reason)
    except GatewayError as exc:
        log.error("stream not allowed", stream=stream, reason=str(exc))
