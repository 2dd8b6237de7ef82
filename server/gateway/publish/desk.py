"""Where one stream's publisher and its worker meet: each may go and come back without the other."""

import time
from collections.abc import Callable
from typing import Protocol

from server.gateway.publish import Publication
from server.wire.logs import get_logger
from server.wire.messages import Message, PieceKind, Published, PublishedData, PublisherGone

log = get_logger(__name__)

# How often a worker hears that its publisher is there, but has sent nothing to begin with.
_SIGN_S = 1.0


class Publisher(Protocol):
    """Who publishes, as the desk sees it."""

    @property
    def shown(self) -> str: ...

    def hang_up(self, reason: str) -> None: ...

    def request_key_frame(self) -> None:
        """A decoder begins; does nothing where the protocol has no word for that."""
        ...


class Desk:
    """`send` returns False where the worker is too slow to take a message. Then nothing is sent until a
    decoder can begin again; `on_drop` is told how many pictures that costs."""

    def __init__(
        self,
        stream: str,
        *,
        timeout_s: float,
        override: bool,
        send: Callable[[Message], bool],
        on_drop: Callable[[int], None],
    ) -> None:
        """A publisher silent for `timeout_s` may be replaced by another; with `override`, any may."""
        self.stream = stream
        self.timeout_s = timeout_s
        self.override = override
        self._send = send
        self._on_drop = on_drop
        self._fault = ""
        self._publisher: Publisher | None = None
        self._publication: Publication | None = None
        self._heard_s = 0.0  # the last piece
        self._flows = False  # at least one piece has come
        self._opening: int | None = None  # of the worker: what it waits for or is served
        self._served = False
        self._begun = False  # the worker has got the first piece
        self._held_since_s: float | None = None  # waiting for a place to begin
        self._slow = False  # it is the worker's fault
        self._sign_s = 0.0

    # The door's and the connection's side

    def set_fault(self, reason: str) -> None:
        """Why nobody can come; "" where somebody can."""
        self._fault = reason
        if reason:
            self._end_opening(reason)

    def accept(self, publisher: Publisher, publication: Publication) -> bool:
        """False while another one publishes that keeps its place."""
        now_s = time.monotonic()
        if self._publisher is not None:
            silent = now_s - self._heard_s > self.timeout_s
            if not silent and not self.override:
                return False
            before = self._publisher
            self.leave(before, f"{'the publisher was silent, and ' if silent else ''}another has come")
            before.hang_up("another has taken its place")
        self._publisher, self._publication = publisher, publication
        self._heard_s, self._flows = now_s, False
        log.info("publisher came", stream=self.stream, publisher=publisher.shown)
        if self._opening is not None:
            self._serve()
        return True

    def leave(self, publisher: Publisher, reason: str) -> None:
        """The publisher has gone; does nothing for one that is none any more."""
        if publisher is not self._publisher:
            return
        self._publisher = self._publication = None
        log.info("publisher left", stream=self.stream, publisher=publisher.shown, reason=reason)
        if self._served:
            self._end_opening(reason)

    def push(
        self,
        publisher: Publisher,
        data: bytes,
        kind: PieceKind,
        *,
        picture: bool,
        arrival_ns: int,
    ) -> None:
        if publisher is not self._publisher:
            return
        assert self._publication is not None
        self._heard_s, self._flows = time.monotonic(), True
        if not self._served:
            return
        if self._held_since_s is not None:
            # A publisher may have no such place: then the decoder has to find one.
            if kind != "start" and self._heard_s - self._held_since_s < self.timeout_s:
                self._hold(picture, arrival_ns)
                return
            data = self._publication.headers() + data
        if not self._begun:
            data = self._publication.prelude() + data
        if self._pass_on(kind, data, arrival_ns):
            self._begun, self._slow, self._held_since_s = True, False, None
        else:
            self._slow = True
            self._held_since_s = self._held_since_s or self._heard_s
            self.request_key_frame()
            self._hold(picture, arrival_ns)

    # The worker's side

    def await_publisher(self, opening: int) -> None:
        """The worker waits, for this opening of its source."""
        self._opening, self._served = opening, False
        if self._fault:
            self._end_opening(self._fault)
        elif self._publisher is not None:
            self._serve()

    def request_key_frame(self) -> None:
        """The worker's decoder has to begin again."""
        if self._publisher is not None:
            self._publisher.request_key_frame()

    def worker_gone(self) -> None:
        self._opening, self._served = None, False

    def close(self) -> None:
        """The stream ends, and its publisher with it."""
        self.worker_gone()
        if self._publisher is not None:
            publisher = self._publisher
            self.leave(publisher, "the stream ends")
            publisher.hang_up("the stream ends")

    def _serve(self) -> None:
        assert self._publication is not None
        assert self._opening is not None
        self._served, self._begun, self._slow = True, False, False
        self._held_since_s = time.monotonic() if self._flows else None
        self._send(
            Published(
                opening=self._opening,
                format=self._publication.format,
                description=self._publication.description,
            )
        )
        self.request_key_frame()

    def _hold(self, picture: bool, arrival_ns: int) -> None:
        if self._slow and picture:
            self._on_drop(1)
        if self._heard_s - self._sign_s >= _SIGN_S:
            self._sign_s = self._heard_s
            self._pass_on("rest", b"", arrival_ns)

    def _pass_on(self, kind: PieceKind, data: bytes, arrival_ns: int) -> bool:
        assert self._opening is not None
        return self._send(PublishedData(opening=self._opening, kind=kind, data=data, arrival_ns=arrival_ns))

    def _end_opening(self, reason: str) -> None:
        if self._opening is not None:
            self._send(PublisherGone(opening=self._opening, reason=reason))
        self.worker_gone()
