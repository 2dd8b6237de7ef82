"""WHIP: a publisher posts an offer, gets an answer and a resource to end it by (RFC 9725)."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    AddressLimitReached,
    AlreadyPublished,
    BodyTooLarge,
    Forbidden,
    InvalidOffer,
    LimitReached,
    NotPublished,
    SessionNotFound,
    StreamFailed,
    StreamNotFound,
    Unauthorized,
    UnsupportedContentType,
    responses,
)
from server.gateway.limits.refusals import Refusals
from server.gateway.publish.rtsp.dialogue import RtspPublication
from server.gateway.routes.sdp import (
    SDP,
    add_session_routes,
    address_of,
    body_of,
    created,
    read_body,
)
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.gateway.webrtc.ice import Network
from server.gateway.webrtc.inbound.offer import parse_offer
from server.gateway.webrtc.inbound.publisher import Publisher
from server.gateway.webrtc.session import Session
from server.settings import Settings
from server.wire.messages import Dropped, PieceKind


class Publishers:
    """The WebRTC publishers of all streams."""

    def __init__(self, settings: Settings, streams: Streams, network: Network, refusals: Refusals) -> None:
        self.settings = settings
        self._streams = streams
        self._network = network
        self._refusals = refusals
        self._publishers: dict[str, tuple[Stream, Publisher]] = {}

    async def open(self, stream_id: str, sdp: str, address: str) -> tuple[Session, str]:
        """A new publisher from that address, and the answer to it."""
        stream = self._streams.get(stream_id)
        if stream.state == "failed":
            raise StreamFailed(f"stream {stream_id!r} has failed: {stream.reason}")
        if not stream.entrance.takes_whip:
            raise NotPublished(f"stream {stream_id!r} has a source of its own; it must be whip:")
        self._streams.check_open()
        offer = parse_offer(sdp)
        limits = self.settings.limits
        pending = sum(p.session.pending for _, p in self._publishers.values() if p.session.address == address)
        if pending >= limits.max_pending_per_address:
            raise AddressLimitReached(
                f"{address} has {pending} publishers that have yet to connect; "
                f"limits.max_pending_per_address={limits.max_pending_per_address}"
            )
        sink = _Sink(stream)
        sink.publisher = publisher = Publisher(
            offer,
            address=address,
            network=self._network,
            limits=limits,
            sink=sink,
            refusals=self._refusals,
            on_closed=self._forget,
        )
        if not stream.desk.accept(publisher, RtspPublication(offer.description)):
            raise AlreadyPublished(f"somebody else publishes stream {stream_id!r}")
        self._publishers[publisher.session.id] = stream, publisher
        try:
            return publisher.session, await publisher.answer()
        except BaseException:
            await publisher.session.close()
            raise

    def get(self, stream_id: str, session_id: str) -> Session:
        """Raises SessionNotFound."""
        stream, publisher = self._publishers.get(session_id, (None, None))
        if stream is None or publisher is None or stream.id != stream_id:
            raise SessionNotFound(f"stream {stream_id!r} has no such session")
        return publisher.session

    async def end(self) -> None:
        await asyncio.gather(*(p.session.close() for _, p in list(self._publishers.values())))

    def _forget(self, publisher: Publisher) -> None:
        stream, _ = self._publishers.pop(publisher.session.id)
        stream.desk.leave(publisher, "the publisher has gone")


@dataclass
class _Sink:
    stream: Stream
    publisher: Publisher | None = None

    def push(self, data: bytes, kind: PieceKind, *, picture: bool, arrival_ns: int) -> None:
        assert self.publisher is not None
        self.stream.desk.push(self.publisher, data, kind, picture=picture, arrival_ns=arrival_ns)

    def dropped(self, count: int) -> None:
        """So many pictures couldn't be decoded for what was lost on the way to us."""
        self.stream.figures.drop(Dropped(stage="decode", reason="before_keyframe", count=count))


def router(publishers: Publishers, settings: Settings, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/whip/{stream}",
        tags=["WHIP"],
        dependencies=[Depends(guard.needs("publish"))],
        responses=responses(Unauthorized, Forbidden),
    )

    @routes.post(
        "",
        status_code=HTTPStatus.CREATED,
        response_class=Response,
        responses={
            201: {"content": {SDP: {}}, "description": "The answer; Location is the publisher's resource"},
            **responses(
                *(InvalidOffer, StreamNotFound, StreamFailed, NotPublished, AlreadyPublished, BodyTooLarge),
                *(UnsupportedContentType, LimitReached, AddressLimitReached),
            ),
        },
        openapi_extra=body_of(SDP),
    )
    async def publish(stream: str, request: Request) -> Response:
        """Starts a WebRTC publisher of a stream whose source is `whip:`. One picture is taken, by H.264, VP8,
        VP9 or AV1, and one sound by Opus."""
        offer = await read_body(request, SDP)
        session, answer = await publishers.open(stream, offer, address_of(request))
        return created(answer, session, f"/whip/{stream}/", settings.webrtc)

    add_session_routes(routes, publishers.get, settings.webrtc)
    return routes
