"""Which gateway is home of which stream: the one record that all gateways of a cluster ask."""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from server.wire.hello import SECRET_BYTES, DoorAddress

# Lost and noticed within the sum of both.
RENEW_S, LEASE_S = 0.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """`given` is the stream as the API was given it, or as it is in the settings file of its gateway, from
    which no other takes it over."""

    stream: str
    gateway: str
    given: Mapping[str, Any]
    created: datetime
    of_settings: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A gateway. `url` is where the others and their players find it; `door` where the others subscribe to
    packets, None where none are passed on."""

    url: str
    door: DoorAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All of it: the gateways that live by their ids, homes by streams. `epoch`: of which record, as a lost
    one is replaced. `secret` is of all these gateways, and of nobody else."""

    epoch: str
    version: int
    gateways: dict[str, Member]
    homes: dict[str, Home]
    secret: bytes = field(default=b"", repr=False)


class Registry(Protocol):
    """The record as gateways reach it; each method raises OSError where it can't be asked now."""

    async def join(self, gateway: str, member: Member, seen: View) -> View: ...

    async def renew(
        self, gateway: str, seen: tuple[str, int], gone: Collection[str]
    ) -> View | Literal["same", "unknown"]: ...

    async def claim(self, home: Home) -> Home | Literal["unknown"]: ...


class Homes:
    """One call at a time, so that exactly one gateway is home of a stream."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._epoch, self._version = secrets.token_hex(8), 0
        self._secret, self._is_new_secret = b"", True
        self._gateways: dict[str, Member] = {}
        self._until_s: dict[str, float] = {}  # of their leases
        self._homes: dict[str, Home] = {}
        self._asked_s = self._begun_s = clock_s()

    def join(self, gateway: str, member: Member, seen: View) -> View:
        """Lets a gateway in, again or for the first time. What it is home to by the view that it has `seen`
        it stays, but for what others have taken since. A new record learns the others' streams from it, and
        the secret, even where one that has seen none was first."""
        self._settle()
        is_early = seen.epoch != self._epoch and self._clock_s() < self._begun_s + LEASE_S
        if seen.secret and self._is_new_secret and (is_early or not self._secret):
            self._secret, self._is_new_secret = seen.secret, False
        self._secret = self._secret or secrets.token_bytes(SECRET_BYTES)
        self._let_in(gateway, member)
        mine = {stream: home for stream, home in seen.homes.items() if home.gateway == gateway}
        for stream, home in list(self._homes.items()):
            if home.gateway == gateway and stream not in mine:
                del self._homes[stream]
        self._learn(mine.values())
        if is_early:
            for other in seen.gateways.keys() - self._gateways.keys():
                self._let_in(other, seen.gateways[other])
            self._learn(seen.homes.values())
        self._settle()
        return self._view()

    def renew(
        self, gateway: str, seen: tuple[str, int], gone: Collection[str]
    ) -> View | Literal["same", "unknown"]:
        """Prolongs the lease of a gateway, which is no longer home to what is `gone`; "unknown" where it has
        to join."""
        self._settle()
        if gateway not in self._gateways:
            return "unknown"
        self._until_s[gateway] = self._clock_s() + LEASE_S
        for stream in gone:
            home = self._homes.get(stream)
            if home is not None and home.gateway == gateway:
                del self._homes[stream]
                self._version += 1
        return "same" if seen == (self._epoch, self._version) else self._view()

    def claim(self, home: Home) -> Home | Literal["unknown"]:
        """The stream's home, which is this one unless another gateway has it; "unknown" where the gateway has
        to join."""
        self._settle()
        if home.gateway not in self._gateways:
            return "unknown"
        holder = self._homes.get(home.stream)
        if holder is not None and holder.gateway != home.gateway:
            return holder
        self._homes[home.stream] = home
        self._version += 1
        return home

    def _let_in(self, gateway: str, member: Member) -> None:
        self._gateways[gateway] = member
        self._until_s[gateway] = self._clock_s() + LEASE_S
        self._version += 1

    def _learn(self, homes: Iterable[Home]) -> None:
        for home in homes:
            holder = self._homes.get(home.stream)
            if holder is None or holder.gateway not in self._gateways:
                self._homes[home.stream] = home
                self._version += 1

    def _settle(self) -> None:
        """Gives the streams of lost gateways to those that live; without one they wait."""
        now_s = self._clock_s()
        # While this process stood still nobody could renew anything.
        stood_still_s = max(0.0, now_s - self._asked_s - 2 * RENEW_S)
        self._asked_s = now_s
        for gateway, until_s in list(self._until_s.items()):
            self._until_s[gateway] = until_s + stood_still_s
            if until_s + stood_still_s < now_s:
                del self._until_s[gateway], self._gateways[gateway]
                self._version += 1
        for stream, home in list(self._homes.items()):
            if home.gateway in self._gateways:
                continue
            if home.of_settings:
                del self._homes[stream]
            elif self._gateways:
                self._homes[stream] = replace(home, gateway=min(self._gateways, key=self._streams_of))
            else:
                continue
            self._version += 1

    def _streams_of(self, gateway: str) -> int:
        return sum(home.gateway == gateway for home in self._homes.values())

    def _view(self) -> View:
        return View(
            epoch=self._epoch,
            version=self._version,
            gateways=dict(self._gateways),
            homes=dict(self._homes),
            secret=self._secret,
        )
