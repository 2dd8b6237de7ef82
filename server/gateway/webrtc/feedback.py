"""Transport-wide feedback: which packets have arrived, and when (draft-holmer-rmcat-transport-wide-cc)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

TRANSPORT_CC_URI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
_PT_RTPFB, _FMT_TRANSPORT_CC = 205, 15
_TICK_S, _EPOCH_S = 250e-6, 64e-3
_MOST = 4096  # packets in one feedback; a second of the largest stream has 2,000
_NOT_RECEIVED, _SMALL, _LARGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Arrivals:
    """From the packet of number `first` on: the receiver's clock at each arrival in seconds, None for a
    packet that hasn't come. The clock wraps after 2^24 × 64 ms."""

    first: int
    at_s: list[float | None]


def split_feedback(compound: bytes) -> tuple[list[Arrivals], bytes]:
    """The transport-wide feedback of a compound RTCP packet, and the packet without it."""
    arrivals, rest, at = [], b"", 0
    while at + 4 <= len(compound):
        end = at + 4 + 4 * int.from_bytes(compound[at + 2 : at + 4], "big")
        packet = compound[at:end]
        if packet[0] & 0x1F == _FMT_TRANSPORT_CC and packet[1] == _PT_RTPFB:
            arrivals.append(parse(packet[12:]))
        else:
            rest += packet
        at = end
    return arrivals, rest + compound[at:]


def parse(fci: bytes) -> Arrivals:
    """Raises ValueError where it ends too early, or speaks of too many packets."""
    if len(fci) < 8:
        raise ValueError(f"transport-wide feedback has {len(fci)} bytes, must have 8 at least")
    first, count, reference = struct.unpack_from("!HHI", fci)
    if count > _MOST:
        raise ValueError(f"transport-wide feedback of {count} packets; {_MOST} are the limit")
    statuses, at = list[int](), 8
    while len(statuses) < count:
        if at + 2 > len(fci):
            raise ValueError("transport-wide feedback ends within its chunks")
        (chunk,) = struct.unpack_from("!H", fci, at)
        statuses += _statuses(chunk)
        at += 2
    clock_s, at_s = (reference >> 8) * _EPOCH_S, list[float | None]()
    for status in statuses[:count]:
        size = status if status in (_SMALL, _LARGE) else 0
        if at + size > len(fci):
            raise ValueError("transport-wide feedback ends within its deltas")
        if size:
            clock_s += int.from_bytes(fci[at : at + size], "big", signed=size == _LARGE) * _TICK_S
        at_s.append(clock_s if size else None)
        at += size
    return Arrivals(first, at_s)


def _statuses(chunk: int) -> Iterator[int]:
    if not chunk & 0x8000:  # a run
        return iter([chunk >> 13 & 3] * (chunk & 0x1FFF))
    if chunk & 0x4000:
        return (chunk >> shift & 3 for shift in range(12, -1, -2))
    return (chunk >> shift & 1 for shift in range(13, -1, -1))
