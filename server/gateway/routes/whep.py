"""WHEP: a viewer posts an offer, gets an answer and a resource to end it by (draft-ietf-wish-whep)."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    AddressLimitReached,
    BodyTooLarge,
    Forbidden,
    InvalidOffer,
    LimitReached,
    RenditionNotFound,
    SessionNotFound,
    StreamFailed,
    StreamNotFound,
    Unauthorized,
    UnsupportedContentType,
    responses,
)
from server.gateway.limits.refusals import Refusals
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
from server.gateway.webrtc.negotiate import parse_offer
from server.gateway.webrtc.peer import Peer
from server.gateway.webrtc.session import Session
from server.settings import Settings
from server.wire.messages import SOURCE, UPSCALED, Rendition

_MEASURE_S = 2.0

Wanted = Annotated[
    str | None,
    Query(
        max_length=32,
        description="One of the stream's `renditions`; without it the viewer gets the largest that its "
        "network carries, and another when that changes",
    ),
]


class Sessions:
    """The WebRTC viewers of all streams."""

    def __init__(self, settings: Settings, streams: Streams, network: Network, refusals: Refusals) -> None:
        self.settings = settings
        self._streams = streams
        self._refusals = refusals
        self._network = network
        self._peers: dict[str, tuple[Stream, Peer]] = {}

    async def open(
        self, stream_id: str, sdp: str, address: str, rendition: Rendition | None = None
    ) -> tuple[Session, str]:
        """A new viewer from that address, and the answer to it. Without `rendition` its network chooses."""
        stream = self._streams.get_to_view(stream_id)
        media = stream.outputs.webrtc
        first = rendition or UPSCALED
        stream.outputs.require(first)
        beside = [SOURCE] if SOURCE in media.renditions and first != SOURCE else []
        offer = parse_offer(sdp, media.profile_levels(), (first, *beside))
        limits = self.settings.limits
        if stream.state == "failed":
            raise StreamFailed(f"stream {stream_id!r} has failed: {stream.reason}")
        self._streams.check_open()
        if stream.figures.whep_viewers >= limits.max_viewers_per_stream:
            raise LimitReached(
                f"stream {stream_id!r} is full; limits.max_viewers_per_stream={limits.max_viewers_per_stream}"
            )
        self._check_share(address)
        peer = Peer(
            offer,
            address=address,
            network=self._network,
            limits=limits,
            media=media,
            refusals=self._refusals,
            on_closed=self._forget,
            fixed=rendition is not None,
        )
        self._peers[peer.session.id] = stream, peer
        stream.audience.count_viewer(+1)
        try:
            return peer.session, await peer.answer()
        except BaseException:
            await peer.session.close()
            raise

    def _check_share(self, address: str) -> None:
        """Raises AddressLimitReached where one address would have more than its share."""
        limits = self.settings.limits
        theirs = [peer for _, peer in self._peers.values() if peer.session.address == address]
        if len(theirs) >= limits.max_viewers_per_address:
            raise AddressLimitReached(
                f"{address} has {len(theirs)} viewers; "
                f"limits.max_viewers_per_address={limits.max_viewers_per_address}"
            )
        pending = sum(peer.session.pending for peer in theirs)
        if pending >= limits.max_pending_per_address:
            raise AddressLimitReached(
                f"{address} has {pending} viewers that have yet to connect; "
                f"limits.max_pending_per_address={limits.max_pending_per_address}"
            )

    def get(self, stream_id: str, session_id: str) -> Peer:
        """Raises SessionNotFound."""
        stream, peer = self._peers.get(session_id, (None, None))
        if stream is None or peer is None or stream.id != stream_id:
            raise SessionNotFound(f"stream {stream_id!r} has no such session")
        return peer

    async def measure(self) -> None:
        """Tells the metrics of the viewers' networks, until cancelled."""
        while True:
            await asyncio.sleep(_MEASURE_S)
            self._measure()

    def _measure(self) -> None:
        watched = {
            stream: dict.fromkeys(stream.outputs.webrtc.renditions, 0) for stream in self._streams.to_view()
        }
        for stream, peer in self._peers.values():
            if peer.session.pending or stream not in watched:
                continue
            path, counts = peer.path, watched[stream]
            counts[peer.rendition] = counts.get(peer.rendition, 0) + 1
            stream.figures.metrics.network(path.rtt_s if path.rtt_measured else None, path.loss)
        for stream, counts in watched.items():
            stream.figures.metrics.renditions(counts)

    async def end(self) -> None:
        """Says goodbye to every viewer."""
        await asyncio.gather(*(peer.session.close() for _, peer in list(self._peers.values())))

    def _forget(self, peer: Peer) -> None:
        stream, _ = self._peers.pop(peer.session.id)
        stream.audience.count_viewer(-1)


def router(sessions: Sessions, settings: Settings, guard: Guard, prefix: str = "") -> APIRouter:
    """`prefix` comes before the sessions' ids in what clients are told."""
    routes = APIRouter(
        prefix="/whep/{stream}",
        tags=["WHEP"],
        dependencies=[Depends(guard.needs("view"))],
        responses=responses(Unauthorized, Forbidden),
    )

    @routes.post(
        "",
        status_code=HTTPStatus.CREATED,
        response_class=Response,
        responses={
            201: {"content": {SDP: {}}, "description": "The answer; Location is the viewer's resource"},
            **responses(
                *(InvalidOffer, StreamNotFound, StreamFailed, BodyTooLarge),
                *(UnsupportedContentType, LimitReached, AddressLimitReached, RenditionNotFound),
            ),
        },
        openapi_extra=body_of(SDP),
    )
    async def watch(stream: str, request: Request, rendition: Wanted = None) -> Response:
        """Starts a WebRTC viewer. A second video m-line in the offer gets the source's own picture."""
        offer = await read_body(request, SDP)
        session, answer = await sessions.open(stream, offer, address_of(request), rendition)
        return created(answer, session, f"/whep/{stream}/{prefix}", settings.webrtc)

    add_session_routes(routes, lambda stream, session: sessions.get(stream, session).session, settings.webrtc)
    return routes
