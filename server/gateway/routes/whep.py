"""WHEP: a viewer posts an offer, gets an answer and a resource to end it by (draft-ietf-wish-whep)."""

import asyncio
import secrets
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    AddressLimitReached,
    BodyTooLarge,
    Forbidden,
    InvalidOffer,
    LimitReached,
    PreconditionFailed,
    RenditionNotFound,
    SessionNotFound,
    StreamFailed,
    StreamNotFound,
    Unauthorized,
    UnsupportedContentType,
    UnsupportedPatch,
    responses,
)
from server.gateway.limits.refusals import Refusals
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.gateway.webrtc.ice import Network
from server.gateway.webrtc.negotiate import parse_fragment, parse_offer
from server.gateway.webrtc.peer import Peer
from server.gateway.webrtc.turn import issue
from server.settings import IceServer, Settings
from server.wire.messages import SOURCE, UPSCALED, Rendition

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"

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

    def __init__(self, settings: Settings, streams: Streams, refusals: Refusals) -> None:
        self.settings = settings
        self._streams = streams
        self._refusals = refusals
        self._network = Network(settings.webrtc)
        self._peers: dict[str, tuple[Stream, Peer]] = {}

    async def open(
        self, stream_id: str, sdp: str, client: str, rendition: Rendition | None = None
    ) -> tuple[Peer, str]:
        """A new viewer from that address, and the answer to it. Without `rendition` its network chooses."""
        stream = self._streams.get(stream_id)
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
        address = _network(client)
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
        self._peers[peer.id] = stream, peer
        stream.audience.count_viewer(+1)
        try:
            return peer, await peer.answer()
        except BaseException:
            await peer.close()
            raise

    def _check_share(self, address: str) -> None:
        """Raises AddressLimitReached where one address would have more than its share."""
        limits = self.settings.limits
        theirs = [peer for _, peer in self._peers.values() if peer.address == address]
        if len(theirs) >= limits.max_viewers_per_address:
            raise AddressLimitReached(
                f"{address} has {len(theirs)} viewers; "
                f"limits.max_viewers_per_address={limits.max_viewers_per_address}"
            )
        pending = sum(peer.pending for peer in theirs)
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

    async def end(self) -> None:
        """Says goodbye to every viewer."""
        await asyncio.gather(*(peer.close() for _, peer in list(self._peers.values())))

    async def close(self) -> None:
        await self.end()
        self._network.close()

    def _forget(self, peer: Peer) -> None:
        stream, _ = self._peers.pop(peer.id)
        stream.audience.count_viewer(-1)


def router(sessions: Sessions, settings: Settings, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/whep/{stream}",
        tags=["WHEP"],
        dependencies=[Depends(guard.needs("view"))],
        responses=responses(Unauthorized, Forbidden),
    )

    def links() -> dict[str, str]:
        """The ICE servers, with credentials for whoever asks."""
        servers = issue(settings.webrtc.ice_servers, secrets.token_hex(3))
        return {"Link": ", ".join(map(_link, servers))} if servers else {}

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
        openapi_extra={"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}},
    )
    async def watch(stream: str, request: Request, rendition: Wanted = None) -> Response:
        """Starts a WebRTC viewer. A second video m-line in the offer gets the source's own picture."""
        client = request.client.host if request.client else ""
        peer, answer = await sessions.open(stream, await _body(request, SDP), client, rendition)
        headers = {
            "Location": f"/whep/{stream}/{peer.id}",
            "ETag": peer.etag,
            "Accept-Patch": FRAGMENT,
            **links(),
        }
        return Response(answer, status_code=HTTPStatus.CREATED, media_type=SDP, headers=headers)

    @routes.options("", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
    async def describe(stream: str) -> Response:
        """What this endpoint takes, and the ICE servers to use."""
        headers = {"Allow": "OPTIONS, POST", "Accept-Post": SDP, **links()}
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)

    @routes.patch(
        "/{session}",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        responses=responses(
            *(InvalidOffer, SessionNotFound, PreconditionFailed, UnsupportedContentType, UnsupportedPatch)
        ),
        openapi_extra={
            "requestBody": {"required": True, "content": {FRAGMENT: {"schema": {"type": "string"}}}}
        },
    )
    async def trickle(stream: str, session: str, request: Request) -> Response:
        """Adds ICE candidates of the viewer. Ours are all in the answer; ICE restarts are not offered."""
        peer = sessions.get(stream, session)
        ufrag, candidates, last = parse_fragment(await _body(request, FRAGMENT))
        wanted = request.headers.get("If-Match", "*")
        if wanted not in ("*", peer.etag):
            raise PreconditionFailed(f"If-Match {wanted} is not this session's ETag {peer.etag}")
        if ufrag is not None and ufrag != peer.remote_ufrag:
            raise UnsupportedPatch("an ICE restart is not supported: post a new offer instead")
        await peer.add_candidates(candidates, last=last)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @routes.delete("/{session}", response_class=Response, responses=responses(SessionNotFound))
    async def leave(stream: str, session: str) -> Response:
        """Ends a viewer."""
        await sessions.get(stream, session).close()
        return Response()

    return routes


def _network(client: str) -> str:
    """Whom an address stands for: in IPv6 one household or machine has a whole /64."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ip_network((address, 64), strict=False))
    return str(address)


async def _body(request: Request, content_type: str) -> str:
    given = request.headers.get("Content-Type", "")
    if given.partition(";")[0].strip().lower() != content_type:
        raise UnsupportedContentType(f"Content-Type {given!r} must be {content_type}")
    body = await request.body()
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidOffer("the body is no UTF-8 text") from exc


def _link(server: IceServer) -> str:
    """RFC 9725, section 4.6."""
    extra = ""
    if server.username is not None and server.credential is not None:
        extra = (
            f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
        )
    return ", ".join(f'<{url}>; rel="ice-server"{extra}' for url in server.urls)
