"""What the gateway refuses, and the one JSON shape in which it says so (RFC 9457)."""

from http import HTTPMethod, HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Mount

from server.settings import describe_error

PROBLEM = "application/problem+json"


class GatewayError(Exception):
    """A request that can't be served as it is; the message names the thing, the value and the rule."""

    status = HTTPStatus.BAD_REQUEST
    retry_after_s: int | None = None

    def headers(self) -> dict[str, str]:
        """What the answer's headers say beside its body."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class Unauthorized(GatewayError):
    """The request carries no token (RFC 6750)."""

    status = HTTPStatus.UNAUTHORIZED
    challenge = 'Bearer realm="livesr"'

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "WWW-Authenticate": self.challenge}


class InvalidToken(Unauthorized):
    """The request's token is unknown, expired or forged."""

    challenge = 'Bearer realm="livesr", error="invalid_token"'


class Forbidden(GatewayError):
    """The token is valid, and not for this."""

    status = HTTPStatus.FORBIDDEN

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self._scope = scope

    def headers(self) -> dict[str, str]:
        challenge = f'Bearer realm="livesr", error="insufficient_scope", scope="{self._scope}"'
        return {**super().headers(), "WWW-Authenticate": challenge}


class TooManyRequests(GatewayError):
    """More from one address than the operator's limits allow, or of one stream than anybody needs."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownHost(GatewayError):
    """The request was meant for another host, or came by a name that isn't ours."""

    status = HTTPStatus.MISDIRECTED_REQUEST


class HeadersTooLarge(GatewayError):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class InvalidPath(GatewayError):
    """A signed path that has expired, or that nobody signed."""

    status = HTTPStatus.FORBIDDEN


class InvalidRequest(GatewayError):
    """A path, query or body that breaks a rule of this description."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidReload(GatewayError):
    """An HLS playlist asked for as it can never be (RFC 8216bis, 6.2.5.2)."""


class UnreadableBody(GatewayError):
    """A body that is no JSON."""


class InvalidStream(GatewayError):
    """A stream that could never run as described."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class StreamNotFound(GatewayError):
    status = HTTPStatus.NOT_FOUND


class StreamExists(GatewayError):
    status = HTTPStatus.CONFLICT


class StreamOfSettings(GatewayError):
    """The stream is in the settings file, and is changed there."""

    status = HTTPStatus.CONFLICT


class StreamFailed(GatewayError):
    """The stream is there and will never have a picture."""

    status = HTTPStatus.CONFLICT


class NotMoved(GatewayError):
    """No other worker has taken the stream over: it goes on as it was."""

    status = HTTPStatus.CONFLICT


class NotChanged(GatewayError):
    """No worker of the changed stream has taken over: it goes on as it was."""

    status = HTTPStatus.CONFLICT


class NodeNotFound(GatewayError):
    status = HTTPStatus.NOT_FOUND


class NotPublished(GatewayError):
    """The stream is there, and waits for no publisher."""

    status = HTTPStatus.CONFLICT


class AlreadyPublished(GatewayError):
    """Somebody publishes the stream."""

    status = HTTPStatus.CONFLICT


class NotKept(GatewayError):
    """The file that streams are kept in over a restart can't be written."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class SessionNotFound(GatewayError):
    status = HTTPStatus.NOT_FOUND


class RenditionNotFound(GatewayError):
    """The stream has no rendition of that name; the answer says which it has."""

    status = HTTPStatus.NOT_FOUND


class SegmentNotFound(GatewayError):
    status = HTTPStatus.NOT_FOUND


class RecordingNotFound(GatewayError):
    status = HTTPStatus.NOT_FOUND


class RecordingGrows(GatewayError):
    """A file that is still being written can't be deleted."""

    status = HTTPStatus.CONFLICT


class RangeNotSatisfiable(GatewayError):
    """The file ends before that range begins; `Content-Range` says where (RFC 9110, 15.5.17)."""

    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self._size = size

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "Content-Range": f"bytes */{self._size}"}


class RemoteFailed(GatewayError):
    """Where the recording lies can't be reached, or doesn't do as told."""

    status = HTTPStatus.BAD_GATEWAY


class RecordingChanges(GatewayError):
    """The recordings of that time have formats that one file can't have."""

    status = HTTPStatus.CONFLICT


class InvalidOffer(GatewayError):
    """What came as an offer is no SDP, or one that can't be answered."""


class UnsupportedContentType(GatewayError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class PreconditionFailed(GatewayError):
    status = HTTPStatus.PRECONDITION_FAILED


class UnsupportedPatch(GatewayError):
    """A change of session other than more ICE candidates."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class BodyTooLarge(GatewayError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class LimitReached(GatewayError):
    """Full by the operator's limits, or shutting down."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 5


class AddressLimitReached(GatewayError):
    """One address already has its share of the viewers."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    retry_after_s = 5


class HomesUnknown(GatewayError):
    """Which gateway of the cluster is home of which stream can't be known now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 1


class HomeUnreachable(GatewayError):
    """The gateway that is the stream's home doesn't answer; another one will be its home, or that again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 1


class NotReady(GatewayError):
    """There, but without a picture yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 1


class Problem(BaseModel):
    """RFC 9457 problem details."""

    title: str
    status: int
    detail: str


def _response(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers, media_type=PROBLEM)


def answer(error: GatewayError) -> JSONResponse:
    """The problem document that says it."""
    return _response(error.status, str(error), error.headers())


async def _on_gateway_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, GatewayError)
    return answer(exc)


async def _on_http_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed(request)):
        headers["Allow"] = ", ".join(allowed)
    return _response(exc.status_code, exc.detail, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of a path, each of which may have a route of its own; a route by itself names only its own.
    None of what is mounted, which answers for itself."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]

    def fits(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in HTTPMethod if fits(method)]


async def _on_invalid_request(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    return _response(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(describe_error, exc.errors())))


async def _on_disconnect(request: Request, exc: Exception) -> JSONResponse:
    return _response(HTTPStatus.BAD_REQUEST, "the client left")  # to nobody


async def _on_bug(request: Request, exc: Exception) -> JSONResponse:
    return _response(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why")


def install(app: FastAPI) -> None:
    """Makes every error of this app a problem document."""
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def responses(*errors: type[GatewayError]) -> dict[int | str, dict[str, object]]:
    """The OpenAPI description of these errors."""
    described: dict[int | str, dict[str, object]] = {}
    for error in errors:
        text = (error.__doc__ or HTTPStatus(error.status).phrase).strip()
        described[int(error.status)] = {"description": text, "content": _PROBLEM}
    return described


_PROBLEM = {PROBLEM: {"schema": Problem.model_json_schema()}}
# What any request may be answered with, before a route sees it.
OF_EVERY_ROUTE = responses(UnknownHost, HeadersTooLarge, BodyTooLarge, TooManyRequests, InvalidRequest)
