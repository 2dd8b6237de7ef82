"""This gateway among the others of its cluster: which streams it is home to, and who is to the rest."""

import asyncio
import contextlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from server.gateway.errors import HomesUnknown, StreamExists
from server.gateway.placement.homes import RENEW_S, Home, Member, Registry, View
from server.settings import StreamSettings
from server.wire.hello import SECRET_BYTES, DoorAddress, Ticket
from server.wire.logs import get_logger

log = get_logger(__name__)

_LOOK_EVERY_S = 0.1  # whatever is asked for
# What gateways prove to each other by the secret that they share: each by a key of its own.
Purpose = Literal["packets", "forwarded", "hls paths"]


class Fleet:
    """What the record said last, and the lease on this gateway's part of it. One question at a time, so that
    an older answer never replaces a newer one."""

    def __init__(self, registry: Registry, url: str, host: str = "127.0.0.1") -> None:
        """`url`: where the other gateways and their players find this one; `host`: the address of this
        machine where they may subscribe to packets."""
        self.id = secrets.token_hex(8)
        self.url = url.rstrip("/")
        self.host = host
        self.door: DoorAddress | None = None  # there, once it is open
        self._own_secret = secrets.token_bytes(SECRET_BYTES)  # until it knows that of all
        self._registry = registry
        self._asking, self._looking = asyncio.Lock(), asyncio.Lock()
        self._view = View(epoch="", version=0, gateways={}, homes={})
        self._gone: set[str] = set()  # released, which the record has yet to hear
        self._waits_for: dict[str, str] = {}  # streams of the settings, by the gateways that have them
        self._asked_s = 0.0  # at last, of what has been answered or was in vain
        self._released = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def mine(self) -> dict[str, Home]:
        """What this gateway is home to."""
        return {
            home.stream: home
            for home in self._view.homes.values()
            if home.gateway == self.id and home.stream not in self._gone
        }

    def elsewhere(self, stream: str) -> str | None:
        """The base URL of the other gateway that is home to this stream."""
        home = self._view.homes.get(stream)
        return None if home is None or home.gateway == self.id else self.url_of(home.gateway)

    def url_of(self, gateway: str) -> str | None:
        """The base URL of a gateway that lives."""
        member = self._view.gateways.get(gateway)
        return None if member is None else member.url

    def home(self, stream: str) -> Home | None:
        return self._view.homes.get(stream)

    def key(self, purpose: Purpose) -> bytes:
        """Of all gateways of the cluster alike, for that purpose."""
        return hmac.digest(self._view.secret or self._own_secret, purpose.encode(), "sha256")

    async def ticket(self, stream: str) -> Ticket:
        """For a subscription to the stream's packets at its home. Raises OSError."""
        await self.look()
        home = self.home(stream)
        member = None if home is None else self._view.gateways.get(home.gateway)
        if home is None or member is None:
            raise OSError("no gateway is its home now")
        if home.gateway == self.id:
            raise OSError("this gateway is to be its home")
        door = member.door
        if door is None:
            raise OSError(f"the gateway {member.url} passes no packets on: server.streams_elsewhere there")
        return Ticket(
            host=door.host,
            port=door.port,
            fingerprint=door.fingerprint,
            secret=self.key("packets"),
            node=member.url,
        )

    def others(self) -> list[tuple[str, list[Home]]]:
        """Base URLs of the other gateways, each with what it is home to."""
        homes = self._view.homes.values()
        return [
            (member.url, [home for home in homes if home.gateway == gateway])
            for gateway, member in self._view.gateways.items()
            if gateway != self.id
        ]

    def addresses(self) -> set[str]:
        """Of the machines of the other gateways that pass requests on to this one."""
        members = self._view.gateways.items()
        return {member.door.host for gateway, member in members if gateway != self.id and member.door}

    def start(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Renews the lease from now on; `follow` makes what runs here what this gateway is home to."""
        self._closing = False
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._follow(follow))]

    async def close(self) -> None:
        """Leaves its streams to the others, once the lease has ended."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def join(self) -> None:
        """Lets the others know of this gateway; its lease does so later where the record can't be asked."""
        async with self._asking:
            try:
                await self._join()
            except HomesUnknown as exc:
                log.warning("homes unknown", reason=str(exc))

    async def find(self, stream: str) -> str | None:
        """As `elsewhere`; the record is asked for a stream that isn't known."""
        if stream not in self._view.homes:
            await self.look()
        return self.elsewhere(stream)

    async def look(self) -> None:
        """Knows what the record says now, if it can be asked: after a tenth of a second at most, with one
        question for all who look meanwhile."""
        came_s = time.monotonic()
        async with self._looking:
            if self._closing or self._asked_s >= came_s:
                return
            await asyncio.sleep(max(0.0, self._asked_s + _LOOK_EVERY_S - time.monotonic()))
            if self._closing:
                return
            with contextlib.suppress(HomesUnknown):
                await self._renew()

    async def claim(self, stream: str, given: Mapping[str, Any], created: datetime) -> None:
        """Makes this gateway the home of a stream of the API, or says how it is now. Raises StreamExists, or
        HomesUnknown."""
        await self._claim(
            Home(stream=stream, gateway=self.id, given=given, created=created, of_settings=False)
        )

    async def claim_of_settings(self, stream: StreamSettings, created: datetime) -> bool:
        """Whether this gateway is home of that stream of its settings file; the log says why not. Then it is
        `freed` once it can be."""
        given = stream.model_dump(mode="json", exclude_unset=True)
        try:
            await self._claim(
                Home(stream=stream.id, gateway=self.id, given=given, created=created, of_settings=True)
            )
        except (StreamExists, HomesUnknown) as exc:
            holder = self._view.homes.get(stream.id)
            self._waits_for[stream.id] = holder.gateway if holder else ""
            log.warning("stream of the settings not started", stream=stream.id, reason=str(exc))
            return False
        self._waits_for.pop(stream.id, None)
        return True

    def freed(self) -> set[str]:
        """Streams of the settings that another gateway was home to and is lost with. One that was deleted
        there stays so."""
        free = {name for name in self._waits_for if name not in self._view.homes}
        lost = {name for name in free if self._waits_for[name] not in self._view.gateways}
        for name in free:
            del self._waits_for[name]
        return lost

    def release(self, stream: str) -> None:
        """There is no such stream any more."""
        if stream in self.mine():
            self._gone.add(stream)
            self._released.set()

    async def _claim(self, home: Home) -> None:
        if self._closing:
            raise HomesUnknown(f"id={home.stream!r}: the service is shutting down")
        async with self._asking:
            try:
                holder = await self._registry.claim(home)
                if holder == "unknown":
                    await self._join()
                    holder = await self._registry.claim(home)
            except OSError as exc:
                if home.stream not in self._view.homes:
                    self._gone.add(home.stream)  # the record may have heard it
                raise HomesUnknown(f"id={home.stream!r}: {exc}") from exc
            if holder == "unknown":
                raise HomesUnknown(f"id={home.stream!r}: the record of homes forgets this gateway")
            self._view.homes[home.stream] = holder
            if holder.gateway == self.id:
                self._gone.discard(home.stream)
                return
        at = self.url_of(holder.gateway) or "another gateway"
        raise StreamExists(f"id={home.stream!r}: there is a stream of that name at {at}")

    async def _join(self) -> None:
        homes = {name: home for name, home in self._view.homes.items() if name not in self._gone}
        member, asked_s = Member(url=self.url, door=self.door), time.monotonic()
        try:
            self._view = await self._registry.join(self.id, member, replace(self._view, homes=homes))
        except OSError as exc:
            raise HomesUnknown(str(exc)) from exc
        finally:
            self._asked_s = asked_s

    async def _renew(self) -> None:
        async with self._asking:
            gone, seen = frozenset(self._gone), (self._view.epoch, self._view.version)
            asked_s = time.monotonic()
            try:
                view = await self._registry.renew(self.id, seen, gone)
            except OSError as exc:
                raise HomesUnknown(str(exc)) from exc
            finally:
                self._asked_s = asked_s
            if view == "unknown":
                log.warning("lease lost", reason="the record of homes does not know this gateway")
                await self._join()
                return
            self._gone -= gone
            if view != "same":
                self._view = view

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._released.wait(), RENEW_S)
            self._released.clear()
            try:
                await self._renew()
            except HomesUnknown as exc:
                log.warning("homes unknown", reason=str(exc))

    async def _follow(self, follow: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(RENEW_S / 2)
            await follow()
