"""Who publishes to us: the doors that they come to, and the seams between door, protocol and stream."""

from typing import Literal, Protocol

from server.wire.messages import PieceKind, PublishedFormat

# Unknown path and wrong key are one answer: whoever guesses learns nothing.
Admission = Literal["accepted", "busy", "denied"]


class Malformed(Exception):
    """A publisher sent what its protocol doesn't know, or too much; the message holds none of it."""


class Publication(Protocol):
    """What is published, for a worker that begins to read it."""

    @property
    def format(self) -> PublishedFormat: ...

    @property
    def description(self) -> bytes: ...

    def prelude(self) -> bytes:
        """What lies before everything else, as it is known by now."""
        ...

    def headers(self) -> bytes:
        """What a decoder has to know before it begins in the middle."""
        ...


class Line(Protocol):
    """A publisher's connection, as its protocol sees it."""

    def write(self, data: bytes) -> None: ...

    def knows(self, path: bytes) -> bool:
        """Whether somebody may publish there. A wrong path is counted: ask once."""
        ...

    def publish(self, path: bytes, publication: Publication) -> Admission:
        """Asks to publish there; whoever isn't accepted is to be told so, and hung up on."""
        ...

    def push(self, data: bytes, kind: PieceKind, *, picture: bool) -> None:
        """A piece of the publication; whether it is one of the pictures."""
        ...

    def hang_up(self, reason: str) -> None:
        """Hears nothing from here on, and ends the connection soon; who is answered has time to read it."""
        ...


class Dialogue(Protocol):
    """One connection's protocol."""

    def feed(self, data: bytes) -> None:
        """Raises Malformed."""
        ...
