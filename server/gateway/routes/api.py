"""`/api/streams`: create, list, show, delete."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from server.gateway.errors import InvalidStream, LimitReached, StreamExists, StreamNotFound, responses
from server.gateway.figures.views import StreamView
from server.gateway.streams.streams import Streams
from server.settings import Settings, StreamSettings


def router(streams: Streams, settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/api/streams", tags=["Streams"])

    @routes.get("")
    async def list_streams() -> list[StreamView]:
        """Every stream, as it is now."""
        return [stream.view() for stream in streams.all()]

    @routes.post(
        "",
        status_code=HTTPStatus.CREATED,
        responses=responses(StreamExists, InvalidStream, LimitReached),
    )
    async def create_stream(wanted: StreamSettings, response: Response) -> StreamView:
        """Starts a stream; fields that are left out take the operator's defaults."""
        try:
            merged = settings.stream(**wanted.model_dump(exclude_unset=True))
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc
        stream = streams.create(merged)
        response.headers["Location"] = f"/api/streams/{stream.id}"
        return stream.view()

    @routes.get("/{stream}", responses=responses(StreamNotFound))
    async def show_stream(stream: str) -> StreamView:
        """One stream, with the quantiles of its last 512 frames."""
        return streams.get(stream).view()

    @routes.delete("/{stream}", status_code=HTTPStatus.NO_CONTENT, responses=responses(StreamNotFound))
    async def delete_stream(stream: str) -> None:
        """Ends a stream, its worker and its viewers."""
        await streams.delete(stream)

    return routes
