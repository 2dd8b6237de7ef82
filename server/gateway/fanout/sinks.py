"""What a stream's packets go to."""

from typing import Protocol

from server.wire.messages import AudioPacket, Opened, VideoPacket


class Sink(Protocol):
    """Made with its stream and called by the event loop, in the order in which the worker speaks. Every call
    returns at once: what may block, such as a disk or a network muxer, has a thread or process of its own
    behind a queue that is bounded."""

    def opened(self, opened: Opened) -> None:
        """Packets from here on are of these formats."""
        ...

    def video(self, packet: VideoPacket) -> None:
        """Of any rendition. Some come although nobody watches: of a worker that has yet to hear of it."""
        ...

    def audio(self, packet: AudioPacket) -> None: ...

    def interrupted(self) -> None:
        """The worker has gone; what the next one sends begins with a key frame, somewhat later."""
        ...

    def ended(self) -> None:
        """Nothing follows."""
        ...
