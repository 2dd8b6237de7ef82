"""Streams that the API makes: bound by `[sources]`, and kept over a restart where there is a file for it."""

import asyncio
import logging
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from server.gateway.errors import GatewayError, InvalidStream, NotKept, StreamOfSettings
from server.gateway.streams.kept import CantBeKept, KeptStream, KeptStreams
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.settings import Settings, StreamSettings, describe_error

log = logging.getLogger(__name__)


class Strangers:
    """One change at a time, so that the file never says something else than what runs."""

    def __init__(self, settings: Settings, streams: Streams, kept: KeptStreams | None) -> None:
        self._settings = settings
        self._streams = streams
        self._kept = kept
        self._given: dict[str, dict[str, Any]] = {}
        self._changing = asyncio.Lock()

    def restore(self) -> None:
        """Starts what was kept. What can't be started stays in the file, for a time when it can, or until it
        is deleted."""
        for stream in self._kept.at_start if self._kept else ():
            self._given[stream.id] = stream.given
            try:
                self._start(stream.id, stream.given, stream.created)
            except ValidationError as exc:
                why = "; ".join(describe_error(dict(error)) for error in exc.errors())
                log.error("stream %s: kept, but can't be started: %s", stream.id, why)
            except GatewayError as exc:
                log.error("stream %s: kept, but can't be started: %s", stream.id, exc)

    async def create(self, given: dict[str, Any]) -> Stream:
        """Raises pydantic.ValidationError, InvalidStream, StreamExists, LimitReached or NotKept."""
        async with self._changing:
            stream = self._start(given["id"], given)
            try:
                await self._keep(KeptStream(id=stream.id, created=stream.created, given=given))
            except NotKept:
                await self._streams.delete(stream.id)
                raise
            self._given[stream.id] = given
            return stream

    async def change(self, stream: str, changes: dict[str, Any]) -> tuple[Stream, bool]:
        """The stream with these fields in the place of those that it has, and whether its worker is another.
        Raises pydantic.ValidationError, InvalidStream, StreamNotFound, StreamOfSettings, LimitReached or
        NotKept: then it is as it was."""
        async with self._changing:
            if stream not in self._given:
                self._streams.get(stream)
                raise StreamOfSettings(f"stream {stream!r} is in the settings file: change it there")
            found = self._streams.get(stream)
            given = self._given[stream] | changes
            settings = self._checked(given)
            self._streams.check_open()
            await self._keep(KeptStream(id=stream, created=found.created, given=given))
            self._given[stream] = given
            new_worker = await self._streams.change(settings, self._settings.sources.policy())
            return self._streams.get(stream), new_worker

    async def delete(self, stream: str) -> None:
        """Returns when its worker has ended; raises StreamNotFound or NotKept."""
        async with self._changing:
            if stream in self._given:
                await self._forget(stream)
                running = any(stream == other.id for other in self._streams.all())
                del self._given[stream]
                if not running:
                    return
            ending = self._streams.delete(stream)
        await ending

    def _start(self, stream: str, given: dict[str, Any], created: datetime | None = None) -> Stream:
        return self._streams.create(self._checked(given), self._settings.sources.policy(), created)

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
                log.error("stream %s: can't be kept: %s", stream.id, exc)
                raise NotKept("the stream can't be kept over a restart; the log says why") from exc

    async def _forget(self, stream: str) -> None:
        if self._kept is not None:
            try:
                await self._kept.remove(stream)
            except CantBeKept as exc:
                log.error("stream %s: can't be deleted: %s", stream, exc)
                raise NotKept("the stream can't be deleted for good; the log says why") from exc
