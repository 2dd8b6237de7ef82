"""Streams that the API makes: bound by `[sources]`, and kept over a restart where there is a file for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from server.gateway.errors import (
    GatewayError,
    HomesUnknown,
    InvalidStream,
    LimitReached,
    NotChanged,
    NotKept,
    StreamExists,
    StreamOfSettings,
)
from server.gateway.placement.homes import Home
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.kept import CantBeKept, KeptStream, KeptStreams
from server.gateway.streams.moving import Changed
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.settings import Settings, StreamSettings, describe_error
from server.wire.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Coming:
    """A stream as it is to be once its next worker has taken over."""

    stream: KeptStream
    came_to: asyncio.Task[tuple[Stream, Changed]] = field(init=False)
    taken_in_by: "_Coming | None" = None  # a later change, of what this would have made


class Strangers:
    """One change at a time, so that the file never says something else than what runs."""

    def __init__(
        self, settings: Settings, streams: Streams, kept: KeptStreams | None, fleet: Fleet | None = None
    ) -> None:
        """`fleet`: the cluster's gateways, each of which has streams of its own."""
        self._fleet = fleet
        self._settings = settings
        self._streams = streams
        self._kept = kept
        self._known = {stream.id: stream for stream in (kept.at_start if kept else ())}
        self._coming: dict[str, _Coming] = {}  # those whose next worker has yet to take over
        self._running: set[str] = set()  # of those; others can't be started, or a stream of the settings can
        self._changing = asyncio.Lock()

    def made(self, stream: str) -> bool:
        """Whether the running stream of that name is one of these."""
        return stream in self._running

    async def restore(self) -> None:
        """Starts what was kept. What can't be started stays in the file, for a time when it can, or until it
        is deleted; what another gateway has taken over leaves it."""
        for stream in list(self._known.values()):
            try:
                if stream.id not in self._streams:
                    await self._claim(stream)
            except StreamExists as exc:
                await self._lose(stream.id, str(exc))
                continue
            except HomesUnknown as exc:
                log.warning("stream not claimed", stream=stream.id, reason=str(exc))
            with _logged(stream.id):
                self._start(stream.id, stream.given, stream.created)

    async def create(self, given: dict[str, Any]) -> Stream:
        """Raises pydantic.ValidationError, InvalidStream, StreamExists, LimitReached, HomesUnknown or
        NotKept."""
        async with self._changing:
            stream = KeptStream(id=given["id"], created=datetime.now(UTC), given=given)
            if stream.id in self._streams:
                return self._start(stream.id, given)  # which says why not
            await self._claim(stream)
            try:
                started = self._start(stream.id, given, stream.created)
                await self._keep_started(stream)
            except BaseException:
                await self._claim_back(stream.id)
                raise
            self._known[stream.id] = stream
            return started

    async def _keep_started(self, stream: KeptStream) -> None:
        try:
            await self._keep(stream)
        except NotKept:
            self._running.remove(stream.id)
            await self._streams.delete(stream.id)
            raise

    async def change(
        self, stream: str, changes: dict[str, Any], *, beside: bool = True
    ) -> tuple[Stream, Changed]:
        """The stream with these fields in the place of those that it has, and what that came to. `beside`: as
        soon as another worker has taken over, where both can run; a later change is for both then, and what
        it comes to is what both come to. Raises pydantic.ValidationError, InvalidStream, StreamNotFound,
        StreamOfSettings, LimitReached, HomesUnknown, NotChanged or NotKept: then it is as it was."""
        async with self._changing:
            self._streams.check_open()
            found = self._streams.get(stream)
            if not self.made(stream):
                raise StreamOfSettings(f"stream {stream!r} is in the settings file: change it there")
            earlier = self._coming.get(stream)
            given = (earlier.stream if earlier else self._known[stream]).given | changes
            settings = self._checked(given)
            kept = KeptStream(id=stream, created=found.created, given=given)
            await self._claim(kept)
            try:
                await self._keep(kept)
            except NotKept:
                await self._claim_back(stream)
                raise
            coming = _Coming(kept)
            if earlier:
                await found.end_change()
                await asyncio.wait([earlier.came_to])
                earlier.taken_in_by = coming
            self._coming[stream] = coming
            beside = beside and found.state != "failed"
            coming.came_to = asyncio.create_task(self._change_to(coming, settings, beside=beside))
            if not beside:
                await asyncio.wait([coming.came_to])
        # Others don't wait for what may take minutes.
        return await self._outcome(coming)

    async def _outcome(self, coming: _Coming) -> tuple[Stream, Changed]:
        """What came of it, or of the later one that has taken it in. Raises as `change`."""
        try:
            return await asyncio.shield(coming.came_to)
        except (NotChanged, LimitReached):
            async with self._changing:
                await self._take_back(coming)
            if coming.taken_in_by is None:
                self._streams.get(coming.stream.id)  # it may have been deleted meanwhile
                raise
        return await self._outcome(coming.taken_in_by)

    async def _change_to(
        self, coming: _Coming, settings: StreamSettings, *, beside: bool
    ) -> tuple[Stream, Changed]:
        changed = await self._streams.change(
            settings, self._settings.sources.policy(), anew=True, beside=beside
        )
        stream = coming.stream
        if self._coming.get(stream.id) is coming:
            del self._coming[stream.id]
            self._known[stream.id] = stream
        return self._streams.get(stream.id), changed

    async def _take_back(self, coming: _Coming) -> None:
        """Nothing came of it; nor, since, of a later one, and the stream is still there."""
        stream = coming.stream.id
        if self._coming.get(stream) is not coming:
            return
        del self._coming[stream]
        with _logged(stream):
            await self._keep(self._known[stream])
        await self._claim_back(stream)

    async def delete(self, stream: str) -> None:
        """Returns when its worker has ended; raises StreamNotFound or NotKept."""
        async with self._changing:
            known = stream in self._known
            if known:
                await self._forget(stream)
                del self._known[stream]
                self._coming.pop(stream, None)
                self._running.discard(stream)
            if self._fleet is not None:
                self._fleet.release(stream)
            if known and stream not in self._streams:
                return
            ending = self._streams.delete(stream)
        await ending

    async def follow_homes(self) -> None:
        """Makes what runs here what this gateway is home to: takes over what a lost gateway had, ends what
        another has taken over while this one was not heard, and has new streams of the settings known.
        Those that a lost gateway had start where they are in the settings, too."""
        if self._fleet is None:
            return
        async with self._changing:
            mine = self._fleet.mine()
            for home in mine.values():
                if home.of_settings and home.stream not in self._streams:
                    self._fleet.release(home.stream)
                elif not home.of_settings and home.stream not in self._known:
                    await self._take_over(home)
            for stream in [stream for stream in self._known.values() if stream.id not in mine]:
                try:
                    await self._claim(stream)
                except StreamExists as exc:
                    await self._lose(stream.id, str(exc))
                except HomesUnknown:
                    return  # its lease says so in the log
            for found in self._streams.all():
                if found.id in mine or self.made(found.id):
                    continue
                claimed = await self._fleet.claim_of_settings(found.settings, found.created)
                if not claimed and self._fleet.elsewhere(found.id):
                    with _logged(found.id):
                        await self._streams.delete(found.id)
            freed = self._fleet.freed()
            for wanted in [wanted for wanted in self._settings.streams if wanted.id in freed]:
                if await self._fleet.claim_of_settings(wanted, datetime.now(UTC)):
                    with _logged(wanted.id):
                        self._streams.create(wanted, waited_for=True)

    async def _take_over(self, home: Home) -> None:
        log.warning("stream taken over", stream=home.stream, reason="its gateway is lost")
        stream = KeptStream(id=home.stream, created=home.created, given=dict(home.given))
        self._known[stream.id] = stream
        with _logged(stream.id):
            self._start(stream.id, stream.given, stream.created, waited_for=True)
        with _logged(stream.id):
            await self._keep(stream)

    async def _lose(self, stream: str, reason: str) -> None:
        log.warning("stream at home elsewhere", stream=stream, reason=reason)
        del self._known[stream]
        self._coming.pop(stream, None)
        with _logged(stream):
            await self._forget(stream)
        if self.made(stream):
            self._running.remove(stream)
            with _logged(stream):
                await self._streams.delete(stream)

    async def _claim(self, stream: KeptStream) -> None:
        """Raises StreamExists or HomesUnknown."""
        if self._fleet is not None:
            await self._fleet.claim(stream.id, stream.given, stream.created)

    async def _claim_back(self, stream: str) -> None:
        """Undoes a claim: what was known before is again."""
        if self._fleet is None:
            return
        if stream not in self._known:
            self._fleet.release(stream)
            return
        with _logged(stream):
            coming = self._coming.get(stream)
            await self._claim(coming.stream if coming else self._known[stream])

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

    def _start(
        self, stream: str, given: dict[str, Any], created: datetime | None = None, *, waited_for: bool = False
    ) -> Stream:
        started = self._streams.create(
            self._checked(given), self._settings.sources.policy(), created, waited_for=waited_for
        )
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
