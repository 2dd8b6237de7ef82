"""What a browser tells its server of the arrival of packets, and what that asks of it, for aiortc's viewer.

Feedback is that of draft-holmer-rmcat-transport-wide-cc-extensions-01; aiortc has none.
"""

import re
import struct

from aiortc.rtp import unpack_header_extensions

TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
_TRANSPORT_CC_ID, _PLAYOUT_DELAY_ID = 13, 14
_RTPFB, _FORMAT = 205, 15
_TICK_S, _EPOCH_S = 250e-6, 64e-3
_MISSING, _ARRIVED = 0, 2  # the latter with a difference of two bytes
_VECTOR, _IN_VECTOR = 0xC000, 7
_WRAP = 1 << 16
_PLAYOUT_TICK_S = 0.01


def offer_feedback(sdp: str) -> str:
    """The offer, of whose video arrivals are told."""
    lines = (
        f"a=extmap:{_TRANSPORT_CC_ID} {TRANSPORT_CC}\r\n",
        f"a=extmap:{_PLAYOUT_DELAY_ID} {PLAYOUT_DELAY}\r\n",
    )
    sections = re.split(r"(?=^m=)", sdp, flags=re.MULTILINE)
    for index, section in enumerate(sections):
        if section.startswith("m=video"):
            types = re.findall(r"^a=rtpmap:(\d+) (?:H264|VP8)/", section, flags=re.MULTILINE)
            feedback = [f"a=rtcp-fb:{payload_type} transport-cc\r\n" for payload_type in types]
            sections[index] = section + "".join([*lines, *feedback])
    return "".join(sections)


class Arrivals:
    """Of one viewer's packets since the last feedback."""

    def __init__(self) -> None:
        self.hold_s = 0.0  # the server asks that pictures are held back for so long
        self._media_ssrc = 0
        self._arrived_s: dict[int, float] = {}
        self._next: int | None = None
        self._count = 0

    def packet(self, data: bytes, now_s: float) -> None:
        """A packet of RTP has come."""
        for number, value in _extensions(data):
            if number == _PLAYOUT_DELAY_ID and len(value) == 3:
                self.hold_s = (int.from_bytes(value, "big") >> 12) * _PLAYOUT_TICK_S
            elif number == _TRANSPORT_CC_ID and len(value) == 2:
                (self._media_ssrc,) = struct.unpack_from("!I", data, 8)
                self._count_in(int.from_bytes(value, "big"), now_s)

    def feedback(self) -> bytes | None:
        """An RTCP packet about what has come since the last; None where nothing has."""
        if self._next is None or not self._arrived_s:
            return None
        first, last = self._next, max(self._arrived_s)
        arrived_s, self._arrived_s, self._next = self._arrived_s, {}, last + 1
        reference = int(min(arrived_s.values()) / _EPOCH_S)
        at, statuses, deltas = round(reference * _EPOCH_S / _TICK_S), [], b""
        for number in range(first, last + 1):
            if (came_s := arrived_s.get(number)) is None:
                statuses.append(_MISSING)
                continue
            delta = max(-(1 << 15), min(round(came_s / _TICK_S) - at, (1 << 15) - 1))
            at += delta
            statuses.append(_ARRIVED)
            deltas += struct.pack("!h", delta)
        body = struct.pack("!IIHH", 1, self._media_ssrc, first % _WRAP, len(statuses))
        body += struct.pack("!I", reference % (1 << 24) << 8 | self._count) + _chunks(statuses) + deltas
        body += bytes(-len(body) % 4)
        self._count = (self._count + 1) % 256
        return struct.pack("!BBH", 0x80 | _FORMAT, _RTPFB, len(body) // 4) + body

    def _count_in(self, number: int, now_s: float) -> None:
        if self._next is None:
            self._next = number
        number = self._next + (number - self._next + _WRAP // 2) % _WRAP - _WRAP // 2
        if number >= self._next:  # else it was said to be missing
            self._arrived_s.setdefault(number, now_s)


def _chunks(statuses: list[int]) -> bytes:
    chunks = b""
    for at in range(0, len(statuses), _IN_VECTOR):
        vector = 0
        for status in [*statuses[at : at + _IN_VECTOR], *[_MISSING] * _IN_VECTOR][:_IN_VECTOR]:
            vector = vector << 2 | status
        chunks += struct.pack("!H", _VECTOR | vector)
    return chunks


def _extensions(data: bytes) -> list[tuple[int, bytes]]:
    """The header extensions of a packet (RFC 8285); none of one that makes no sense, which aiortc drops."""
    at = 12 + 4 * (data[0] & 0xF)
    if not data[0] & 0x10 or len(data) < at + 4:
        return []
    profile, words = struct.unpack_from("!HH", data, at)
    try:
        return unpack_header_extensions(profile, data[at + 4 : at + 4 + 4 * words])
    except ValueError:
        return []
