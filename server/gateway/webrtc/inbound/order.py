"""RTP packets in the order of their numbers: what is missing is asked for, and waited for, a while."""

from collections.abc import Iterator
from dataclasses import dataclass

ASK_EVERY_S = 0.05
_WRAP = 1 << 16
# So many packets wait at most: a key frame of 1080p at 20 Mbit/s has about a hundred.
MOST_WAITING = 512
_OLD_IN_A_ROW = 50  # then it is the sender that counts anew


@dataclass(frozen=True, slots=True)
class Packet:
    """What is kept of one RTP packet. `arrival_ns` is on CLOCK_MONOTONIC."""

    number: int
    timestamp: int
    marker: bool
    payload: bytes
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Packets that won't come any more were between the one before and the one behind."""


class Order:
    """`patience_s`: what is missing for so long is lost."""

    def __init__(self, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._next: int | None = None  # what is given next, unwrapped
        self._highest = 0
        self._old = 0  # too old packets since the last good one
        self._waiting: dict[int, Packet] = {}
        self._missing: dict[int, tuple[float, float]] = {}  # since when, and when it was asked for

    def add(self, packet: Packet, now_s: float, *, again: bool = False) -> Iterator[Packet | Lost]:
        """What can be given now. `again`: it is a retransmission; senders probe the network by many of those,
        of what has come long ago."""
        if self._next is None:
            self._next = self._highest = packet.number
            self._highest -= 1
        number = self._highest + _signed(packet.number - self._highest)
        if not again:
            self._old = self._old + 1 if number < self._next else 0
        if self._old >= _OLD_IN_A_ROW or number >= self._next + MOST_WAITING:
            self._waiting.clear()
            self._missing.clear()
            self._next, self._highest, self._old = number, number - 1, 0
            yield Lost()
        if number < self._next:
            return  # it has been given, or up
        for missing in range(self._highest + 1, number):
            self._missing[missing] = now_s, -ASK_EVERY_S
        self._highest = max(self._highest, number)
        self._missing.pop(number, None)
        self._waiting[number] = packet
        yield from self._give()

    def expire(self, now_s: float) -> Iterator[Packet | Lost]:
        """What can be given because what it waited for is lost."""
        while self._waiting and self._next is not None:
            since_s, _ = self._missing.get(self._next, (now_s, 0.0))
            if now_s - since_s < self._patience_s:
                return
            while self._next not in self._waiting:
                self._missing.pop(self._next, None)
                self._next += 1
            yield Lost()
            yield from self._give()

    def ask(self, now_s: float) -> list[list[int]]:
        """The numbers to ask for now, each list in rising order, which a wrap ends."""
        asked: dict[int, list[int]] = {}
        for number, (since_s, asked_s) in self._missing.items():
            if now_s - asked_s >= ASK_EVERY_S:
                self._missing[number] = since_s, now_s
                asked.setdefault(number // _WRAP, []).append(number % _WRAP)
        return [sorted(numbers) for numbers in asked.values()]

    def _give(self) -> Iterator[Packet]:
        assert self._next is not None
        while (packet := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            yield packet


def _signed(difference: int) -> int:
    """A difference of numbers, which have 16 bits."""
    return (difference + _WRAP // 2) % _WRAP - _WRAP // 2
