"""What WHEP and WHIP have in common over HTTP: SDP bodies, a session's resource, trickled candidates."""

import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from fastapi import APIRouter, Request, Response

from server.gateway.errors import (
    InvalidOffer,
    PreconditionFailed,
    SessionNotFound,
    UnsupportedContentType,
    UnsupportedPatch,
    responses,
)
from server.gateway.webrtc.negotiate import parse_fragment
from server.gateway.webrtc.session import Session
from server.gateway.webrtc.turn import issue
from server.settings import IceServer, WebRtc

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')


def body_of(content_type: str) -> dict[str, Any]:
    """OpenAPI's description of a body that is text of that type."""
    return {"requestBody": {"required": True, "content": {content_type: {"schema": {"type": "string"}}}}}


async def read_body(request: Request, content_type: str) -> str:
    """Raises UnsupportedContentType, InvalidOffer."""
    given = request.headers.get("Content-Type", "")
    if given.partition(";")[0].strip().lower() != content_type:
        raise UnsupportedContentType(f"Content-Type {given!r} must be {content_type}")
    body = await request.body()
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidOffer("the body is no UTF-8 text") from exc


def created(answer: str, session: Session, at: str, settings: WebRtc) -> Response:
    """The answer to an offer, and the session's resource: that path, and its id."""
    headers = {
        "Location": f"{at}{session.id}",
        "ETag": session.etag,
        "Accept-Patch": FRAGMENT,
        **_links(settings),
    }
    return Response(answer, status_code=HTTPStatus.CREATED, media_type=SDP, headers=headers)


def add_session_routes(routes: APIRouter, find: Callable[[str, str], Session], settings: WebRtc) -> None:
    """OPTIONS of the endpoint, PATCH and DELETE of a session's resource. `find` takes the stream's and the
    session's id, and raises SessionNotFound."""

    @routes.options("", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
    async def describe(stream: str) -> Response:
        """What this endpoint takes, and the ICE servers to use."""
        headers = {"Allow": "OPTIONS, POST", "Accept-Post": SDP, **_links(settings)}
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)

    @routes.patch(
        "/{session}",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        responses=responses(
            *(InvalidOffer, SessionNotFound, PreconditionFailed, UnsupportedContentType, UnsupportedPatch)
        ),
        openapi_extra=body_of(FRAGMENT),
    )
    async def trickle(stream: str, session: str, request: Request) -> Response:
        """Adds ICE candidates of the client. Ours are all in the answer; ICE restarts are not offered."""
        return await _trickled(find(stream, session), request)

    @routes.delete("/{session}", response_class=Response, responses=responses(SessionNotFound))
    async def end(stream: str, session: str) -> Response:
        """Ends the session."""
        await find(stream, session).close()
        return Response()


async def _trickled(session: Session, request: Request) -> Response:
    """Adds ICE candidates of the client. Raises InvalidOffer, PreconditionFailed, UnsupportedPatch,
    UnsupportedContentType."""
    ufrag, candidates, last = parse_fragment(await read_body(request, FRAGMENT))
    wanted = ", ".join(request.headers.getlist("If-Match"))
    # What is weak matches nothing (RFC 9110, section 13.1.1).
    if wanted.strip() not in ("", "*") and session.etag not in _ENTITY_TAG.findall(wanted):
        raise PreconditionFailed(f"If-Match {wanted} is not this session's ETag {session.etag}")
    if ufrag is not None and ufrag != session.remote_ufrag:
        raise UnsupportedPatch("an ICE restart is not supported: post a new offer instead")
    await session.add_candidates(candidates, last=last)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def address_of(request: Request) -> str:
    """Whom a client's address stands for: in IPv6 one household or machine has a whole /64."""
    client = request.client.host if request.client else ""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ip_network((address, 64), strict=False))
    return str(address)


def _links(settings: WebRtc) -> dict[str, str]:
    """The ICE servers, with credentials for whoever asks (RFC 9725, section 4.6)."""
    servers = issue(settings.ice_servers, secrets.token_hex(3))
    return {"Link": ", ".join(map(_link, servers))} if servers else {}


def _link(server: IceServer) -> str:
    extra = ""
    if server.username is not None and server.credential is not None:
        extra = (
            f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
        )
    return ", ".join(f'<{url}>; rel="ice-server"{extra}' for url in server.urls)
