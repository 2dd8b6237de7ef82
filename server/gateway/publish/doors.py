"""The ports that publishers come to: one listener for each address, however many streams share it."""

import asyncio
import hmac
import time
from collections.abc import Callable

from server.gateway.limits.connections import Connections
from server.gateway.limits.rates import Rates, origin
from server.gateway.limits.refusals import Refusals
from server.gateway.publish import Dialogue, Line
from server.gateway.publish.connection import PublisherConnection
from server.gateway.publish.desk import Desk
from server.gateway.publish.rtmp.dialogue import RtmpDialogue
from server.gateway.publish.rtsp.dialogue import RtspDialogue
from server.gateway.publish.stdin import StandardInput
from server.settings import Limits
from server.wire.logs import get_logger
from server.wire.urls import PublishAddress, PublishProtocol

log = get_logger(__name__)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0


class WrongKeys:
    """People choose keys that can be guessed: an address that has tried too many wrong ones is not heard."""

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self._rates = Rates(limits.failed_logins_per_min / 60, limits.failed_logins_per_min)
        self._refusals = refusals

    def check(self, client: str, find: Callable[[], Desk | None]) -> Desk | None:
        """What `find` finds; None without asking it where the address has tried too many."""
        who, now_s = origin(client), time.monotonic()
        waits = self._rates.wait_s(who, now_s) > 0
        desk = None if waits else find()
        if desk is None:
            self._refusals.add("failed_keys", client)
            if not waits:
                self._rates.take(who, now_s)
        return desk


class Doors:
    """Opened with the first stream that names it, closed with the last."""

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self._limits = limits
        self._refusals = refusals
        # Publishers count by themselves: viewers can't keep them out, nor they viewers.
        self._connections = Connections(limits, refusals, proxies=())
        self._wrong_keys = WrongKeys(limits, refusals)
        self.stdin = StandardInput()
        self._doors: dict[tuple[PublishProtocol, str, int], Door] = {}

    def enter(self, address: PublishAddress, desk: Desk) -> None:
        """From now on publishers of that address find the desk."""
        key = address.protocol, address.host, address.port
        door = self._doors.get(key)
        if door is None:
            door = self._doors[key] = Door(address, self._connection)
        door.add(address.path, desk)

    def leave(self, address: PublishAddress, desk: Desk) -> None:
        key = address.protocol, address.host, address.port
        door = self._doors[key]
        door.remove(desk)
        if not door.desks:
            del self._doors[key]
            door.close()

    def _connection(self, door: "Door") -> PublisherConnection:
        return PublisherConnection(
            speaks=_dialogue(door.protocol),
            find_desk=lambda path, client: self._wrong_keys.check(client, lambda: door.find(path)),
            connections=self._connections,
            refusals=self._refusals,
            timeout_s=self._limits.client_timeout_s,
            on_open=door.guests.add,
            on_close=door.guests.discard,
        )


def _dialogue(protocol: PublishProtocol) -> Callable[[Line], Dialogue]:
    match protocol:
        case "rtmp":
            return RtmpDialogue
        case "rtsp":
            return RtspDialogue


class Door:
    """One listening port, and the desks behind it. While the port can't be had it is tried again."""

    def __init__(self, address: PublishAddress, connect: Callable[["Door"], PublisherConnection]) -> None:
        self.protocol: PublishProtocol = address.protocol
        self.desks: list[tuple[bytes, Desk]] = []
        self.guests: set[PublisherConnection] = set()
        self._host, self._port = address.host, address.port
        self._connect = connect
        self._fault = ""
        self._server: asyncio.Server | None = None
        self._task = asyncio.create_task(self._listen())

    def add(self, path: bytes, desk: Desk) -> None:
        self.desks.append((path, desk))
        self._tell()

    def remove(self, desk: Desk) -> None:
        self.desks = [entry for entry in self.desks if entry[1] is not desk]
        self._tell()

    def find(self, path: bytes) -> Desk | None:
        """Takes as long for a wrong key as for a right one, whatever part of it is wrong."""
        found = None
        for candidate, desk in self.desks:
            if hmac.compare_digest(candidate, path) and found is None:
                found = desk
        return found

    def close(self) -> None:
        self._task.cancel()
        if self._server is not None:
            self._server.close()
        for guest in list(self.guests):
            guest.abort()

    async def _listen(self) -> None:
        loop, retry_s = asyncio.get_running_loop(), _FIRST_RETRY_S
        while True:
            try:
                self._server = await loop.create_server(lambda: self._connect(self), self._host, self._port)
            except OSError as exc:
                self._set_fault(f"port {self._port} of {self._host} can't be had: {exc.strerror or exc}")
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
            else:
                self._set_fault("")
                return

    def _set_fault(self, reason: str) -> None:
        if reason and reason != self._fault:
            log.warning("publishers kept out", reason=reason)
        self._fault = reason
        self._tell()

    def _tell(self) -> None:
        """Each desk why nobody can come to it: of several at one path the first has it."""
        paths = set()
        for path, desk in self.desks:
            desk.set_fault("another stream has the same address" if path in paths else self._fault)
            paths.add(path)
