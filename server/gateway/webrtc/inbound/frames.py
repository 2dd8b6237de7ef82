"""Whole frames of packets in order: none is given that a decoder could not use."""

from collections.abc import Iterator
from dataclasses import dataclass

from server.gateway.webrtc.inbound.begins import VideoCodec, begins
from server.gateway.webrtc.inbound.order import Packet

LARGEST_FRAME_BYTES = 4 << 20
_MOST_PACKETS = 4096


@dataclass(frozen=True, slots=True)
class Frame:
    packets: list[Packet]
    key: bool

    @property
    def arrival_ns(self) -> int:
        """When the last of it came."""
        return max(packet.arrival_ns for packet in self.packets)


class Frames:
    """After a loss nothing is given until the next key frame. `dropped` counts what wasn't."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec = codec
        self._packets: list[Packet] = []
        self._bytes = 0
        self._whole = False  # the frame's beginning can't have been lost
        self.waits = True  # for a key frame
        self.dropped = 0

    def add(self, packet: Packet) -> Iterator[Frame]:
        """The frames that this completes."""
        if not packet.payload:
            return
        if self._packets and packet.timestamp != self._packets[0].timestamp:
            yield from self._end()
        self._packets.append(packet)
        self._bytes += len(packet.payload)
        if self._bytes > LARGEST_FRAME_BYTES or len(self._packets) > _MOST_PACKETS:
            self.lost()
        elif packet.marker:
            yield from self._end()

    def lost(self) -> None:
        """Packets are lost before the next one."""
        self._packets.clear()
        self._bytes = 0
        self._whole, self.waits = False, True

    def _end(self) -> Iterator[Frame]:
        packets, self._packets, self._bytes = self._packets, [], 0
        searched = packets if self._whole else packets[:1]
        key = any(begins(self._codec, packet.payload) for packet in searched)
        self._whole = True
        if key or not self.waits:
            self.waits = False
            yield Frame(packets, key)
        else:
            self.dropped += 1
