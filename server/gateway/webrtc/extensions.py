"""The header extensions of one line's packets, in the one-byte form of RFC 8285."""

import struct
from collections.abc import Sequence

from server.gateway.webrtc.feedback import TRANSPORT_CC_URI
from server.gateway.webrtc.negotiate import MID_URI, PLAYOUT_DELAY_URI, SEND_TIME_URI, Line

_LONGEST_PLAYOUT_DELAY = 1000  # in the extension's ticks of 10 ms


class HeaderExtensions:
    """False where the line has none: then each packet's are no bytes."""

    def __init__(self, line: Line) -> None:
        self._playout_delay = line.extensions.get(PLAYOUT_DELAY_URI)
        self._transport_cc = line.extensions.get(TRANSPORT_CC_URI)
        self._send_time = line.extensions.get(SEND_TIME_URI)
        number = line.extensions.get(MID_URI)
        self._mid = b"" if number is None else _element(number, line.mid.encode())
        self._holds = False  # a delay has been asked for before
        self.numbered = self._transport_cc is not None  # packets carry transport-wide numbers
        varies = self._playout_delay or self._transport_cc or self._send_time
        self._always = None if varies else _extension(self._mid) if self._mid else b""

    def __bool__(self) -> bool:
        return self._always != b""

    def of(self, numbers: Sequence[int], now_s: float, hold_s: float) -> Sequence[bytes]:
        """Of the packets that are sent now, under these transport-wide numbers; their viewer holds pictures
        back for `hold_s` at least."""
        if self._always is not None:
            return [self._always] * len(numbers)
        elements = self._mid
        if self._send_time is not None:
            elements += _element(self._send_time, (int(now_s * (1 << 18)) & 0xFFFFFF).to_bytes(3, "big"))
        if self._playout_delay is not None and (hold_s or self._holds):
            self._holds = True
            delay = round(hold_s * 100) << 12 | _LONGEST_PLAYOUT_DELAY
            elements += _element(self._playout_delay, delay.to_bytes(3, "big"))
        if self._transport_cc is None:
            return [_extension(elements)] * len(numbers)
        # All but the number is the same in all of them.
        first = len(elements) + 5
        whole = _extension(elements + _element(self._transport_cc, bytes(2)))
        before, after = whole[:first], whole[first + 2 :]
        return [before + number.to_bytes(2, "big") + after for number in numbers]


def _extension(elements: bytes) -> bytes:
    elements += bytes(-len(elements) % 4)
    return struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements


def _element(number: int, value: bytes) -> bytes:
    return bytes([number << 4 | len(value) - 1]) + value
