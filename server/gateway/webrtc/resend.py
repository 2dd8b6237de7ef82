"""Which lost packets are sent again (RFC 4585, section 6.2.1), and when there are too many for that."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.gateway.fanout.budget import Budget

HISTORY_PACKETS = 1024  # two large key frames; the payloads are shared by all viewers
# Resends may be this part of what is sent: it repairs 20 % of loss. A link that is too slow loses the more,
# the more is sent again, so that without a limit resends are soon all that it carries.
SHARE = 0.25
RESERVE_BYTES = (
    96 << 10
)  # saved up for a burst of losses; also the most that one packet of feedback can cause
_NEVER = float("-inf")
_RTT_S = 0.1  # until the first report
# From so much loss on, what is lost is sent again twice: else a tenth of it is lost again.
_TWICE_LOSS = 0.02
_RTT_MIN_S, _RTT_MAX_S = 0.02, 0.5  # the viewer's word decides within these


@dataclass(slots=True, kw_only=True)
class Sent:
    """A packet as it was sent."""

    sequence: int
    timestamp: int
    marker: bool
    payload: bytes


class TooLossy(Exception):
    """More is lost than may be sent again: the viewer had better go on at the next key frame."""


class Resends:
    """One line's packets to one viewer."""

    def __init__(self) -> None:
        # Arrays, as a viewer's thousands of objects would keep the garbage collector busy.
        self._payloads: list[bytes | None] = [None] * HISTORY_PACKETS
        self._sequences = array("H", bytes(2 * HISTORY_PACKETS))
        self._timestamps = array("I", bytes(4 * HISTORY_PACKETS))
        self._markers = bytearray(HISTORY_PACKETS)
        self._resent_s = array("d", bytes(8 * HISTORY_PACKETS))
        self._budget = Budget(capacity=RESERVE_BYTES)
        self._rtt_s = _RTT_S

    def sent(self, first: int, timestamp: int, payloads: Sequence[bytes], *, ends: bool) -> None:
        """From sequence number `first` on; `ends`: the last one has the marker."""
        size = 0
        for sequence, payload in enumerate(payloads, first):
            at = sequence % HISTORY_PACKETS
            self._payloads[at] = payload
            self._sequences[at] = sequence & 0xFFFF
            self._timestamps[at] = timestamp
            self._markers[at] = False
            self._resent_s[at] = _NEVER
            size += len(payload)
        self._markers[(first + len(payloads) - 1) % HISTORY_PACKETS] = ends
        self._budget.add(SHARE * size)

    def measured(self, rtt_s: float) -> None:
        # Half of the old one, as a queue that has just drained says little about the next.
        self._rtt_s = (self._rtt_s + min(max(rtt_s, _RTT_MIN_S), _RTT_MAX_S)) / 2

    def lost(self, sequences: Iterable[int], now_s: float, loss: float = 0.0) -> list[Sent]:
        """What to send again, each at most once per round trip, or twice at once where `loss`, the network's,
        is high; raises TooLossy."""
        again = list[Sent]()
        for sequence in sequences:
            at = sequence % HISTORY_PACKETS
            # aiortc counts on past 65,535 where a NACK's mask crosses it.
            if (packet := self._at(at)) is None or packet.sequence != sequence & 0xFFFF:
                continue
            if now_s - self._resent_s[at] < self._rtt_s:
                continue
            if not self._budget.take(len(packet.payload), now_s):
                raise TooLossy
            self._resent_s[at] = now_s
            again.append(packet)
        size = sum(len(packet.payload) for packet in again)
        if loss >= _TWICE_LOSS and self._budget.has(2 * size, now_s):
            self._budget.take(size, now_s)
            again += again
        return again

    def latest(self, size: int) -> list[Sent]:
        """Packets sent last, of so many bytes together; none where nothing was sent."""
        packets, taken = [], 0
        for packet in sorted(
            filter(None, map(self._at, range(HISTORY_PACKETS))),
            key=lambda packet: packet.sequence,
            reverse=True,
        ):
            if taken >= size:
                break
            packets.append(packet)
            taken += len(packet.payload)
        return packets

    def start_over(self, keyframe_bytes: int) -> None:
        """Nothing sent so far is worth repairing. The key frame that follows is, once and whole."""
        self._payloads = [None] * HISTORY_PACKETS
        self._budget.add(keyframe_bytes)

    def _at(self, at: int) -> Sent | None:
        payload = self._payloads[at]
        if payload is None:
            return None
        return Sent(
            sequence=self._sequences[at],
            timestamp=self._timestamps[at],
            marker=bool(self._markers[at]),
            payload=payload,
        )
