"""Transport-wide feedback that we send: which packets have come and when, so that a sender adapts.

draft-holmer-rmcat-transport-wide-cc-extensions-01; `feedback.py` reads what others send.
"""

import struct

from aiortc.rtp import RTCP_RTPFB, pack_rtcp_packet

_FMT = 15
_TICK_NS, _EPOCH_NS = 250_000, 64_000_000
_WRAP = 1 << 16
_MOST = 1000  # packets that one feedback speaks of
_NONE, _SMALL, _LARGE = range(3)
_RUN, _VECTOR = 0x1FFF, 7


class TransportFeedback:
    def __init__(self) -> None:
        self._arrivals: dict[int, int] = {}  # unwrapped number → when it came
        self._next: int | None = None  # the first that nothing has been said of
        self._count = 0

    def arrived(self, number: int, arrival_ns: int) -> None:
        if self._next is None:
            self._next = number
        number = self._next + (number - self._next + _WRAP // 2) % _WRAP - _WRAP // 2
        if number < self._next:
            return  # it has been said to be missing
        if number - self._next >= _MOST:
            self._arrivals.clear()
            self._next = number
        self._arrivals.setdefault(number, arrival_ns)

    def take(self, ssrc: int, media_ssrc: int) -> bytes | None:
        """An RTCP packet about what has come since the last; None where nothing has."""
        if not self._arrivals or self._next is None:
            return None
        first, last = self._next, max(self._arrivals)
        arrivals, self._arrivals, self._next = self._arrivals, {}, last + 1
        reference = min(arrivals.values()) // _EPOCH_NS
        at = reference * _EPOCH_NS // _TICK_NS
        statuses, deltas = list[int](), b""
        for number in range(first, last + 1):
            arrival_ns = arrivals.get(number)
            if arrival_ns is None:
                statuses.append(_NONE)
                continue
            delta = max(-(1 << 15), min(arrival_ns // _TICK_NS - at, (1 << 15) - 1))
            at += delta
            small = 0 <= delta < 256
            statuses.append(_SMALL if small else _LARGE)
            deltas += delta.to_bytes(1) if small else delta.to_bytes(2, signed=True)
        body = struct.pack("!IIHH", ssrc, media_ssrc, first % _WRAP, len(statuses))
        body += struct.pack("!I", (reference % (1 << 24)) << 8 | self._count) + _chunks(statuses) + deltas
        self._count = (self._count + 1) % 256
        return pack_rtcp_packet(RTCP_RTPFB, _FMT, body + bytes(-len(body) % 4))


def _chunks(statuses: list[int]) -> bytes:
    chunks, at = b"", 0
    while at < len(statuses):
        run = 1
        while at + run < len(statuses) and statuses[at + run] == statuses[at] and run < _RUN:
            run += 1
        if run >= _VECTOR:
            chunks += struct.pack("!H", statuses[at] << 13 | run)
            at += run
            continue
        vector = 0
        for status in [*statuses[at : at + _VECTOR], *[_NONE] * _VECTOR][:_VECTOR]:
            vector = vector << 2 | status
        chunks += struct.pack("!H", 0xC000 | vector)
        at += _VECTOR
    return chunks
