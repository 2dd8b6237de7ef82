"""Standard input as a publisher: MPEG-TS that another program writes."""

import asyncio
import sys

from server.gateway.publish.desk import Desk
from server.wire.clock import now_ns
from server.wire.messages import PublishedFormat

_PACKET_BYTES, _SYNC = 188, 0x47
_SURE_PACKETS = 3  # that begin with the byte, one behind the other


class _Publication:
    format: PublishedFormat = "mpegts"
    description = b""

    def prelude(self) -> bytes:
        return b""

    def headers(self) -> bytes:
        return b""


class Packets:
    """Whole transport packets (ISO/IEC 13818-1) of bytes as they come; what lies between them is left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        begin = self._begin(data)
        end = begin
        while end + _PACKET_BYTES <= len(data) and data[end] == _SYNC:
            end += _PACKET_BYTES
        self._rest = data[end:]
        return data[begin:end]

    @staticmethod
    def _begin(data: bytes) -> int:
        if data[:1] == bytes([_SYNC]):
            return 0
        for at in range(max(0, len(data) - _SURE_PACKETS * _PACKET_BYTES)):
            if all(data[at + n * _PACKET_BYTES] == _SYNC for n in range(_SURE_PACKETS)):
                return at
        return max(0, len(data) - _SURE_PACKETS * _PACKET_BYTES)


class StandardInput(asyncio.Protocol):
    """One stream at a time has it; what comes while none has is lost."""

    shown = "standard input"

    def __init__(self) -> None:
        self._desk: Desk | None = None
        self._packets = Packets()
        self._opening: asyncio.Task[None] | None = None
        self._end = ""

    def enter(self, desk: Desk) -> None:
        if self._desk is not None:
            desk.set_fault("another stream has standard input")
            return
        self._desk = desk
        desk.set_fault(self._end)
        if not self._end:
            desk.accept(self, _Publication())
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())

    def leave(self, desk: Desk) -> None:
        if desk is self._desk:
            self._desk = None

    def hang_up(self, reason: str) -> None:
        pass  # whoever writes learns nothing

    def request_key_frame(self) -> None:
        pass

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().connect_read_pipe(lambda: self, sys.stdin)
        except (OSError, ValueError) as exc:  # asyncio waits for pipes only
            self._over(f"standard input must be a pipe: {exc}")

    def data_received(self, data: bytes) -> None:
        packets = self._packets.feed(data)
        if self._desk is not None and packets:
            self._desk.push(self, packets, "start", picture=True, arrival_ns=now_ns())

    def connection_lost(self, exc: Exception | None) -> None:
        self._over("standard input has ended")

    def _over(self, reason: str) -> None:
        self._end = reason
        if self._desk is not None:
            self._desk.leave(self, reason)
            self._desk.set_fault(reason)
