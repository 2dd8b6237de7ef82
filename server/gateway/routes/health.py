"""For whoever runs the service: `/healthz`, `/readyz` and `/metrics`."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from server.gateway.auth.guard import Guard
from server.gateway.auth.scopes import Caller
from server.gateway.errors import Forbidden, Unauthorized, responses
from server.gateway.figures.metrics import CONTENT_TYPE, Metrics
from server.gateway.figures.views import StreamState
from server.gateway.streams.streams import Streams
from server.settings import Settings


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """Ready, once every stream of the settings file has left its start behind, and until shutdown begins."""

    ready: bool
    streams: dict[str, StreamState] = Field(description="Those that the caller may view")


def router(streams: Streams, metrics: Metrics, settings: Settings, guard: Guard) -> APIRouter:
    routes = APIRouter(tags=["Operation"])
    starting = {stream.id for stream in settings.streams}

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz")
    async def healthz() -> Health:
        """The process is alive and its event loop turns."""
        return Health(status="ok")

    @routes.head("/readyz", include_in_schema=False)
    @routes.get(
        "/readyz",
        responses={503: {"model": Readiness, "description": "Starting or shutting down"}},
        openapi_extra={"security": [{}]},  # beside the one that the dependency adds: a token may be left out
    )
    async def readyz(response: Response, caller: Annotated[Caller, Depends(guard.caller)]) -> Readiness:
        """Whether to send viewers here. A stream that failed or lost its source does not change it."""
        states = {stream.id: stream.state for stream in streams.all()}
        starting.intersection_update(stream for stream, state in states.items() if state == "starting")
        ready = not starting and not streams.closing
        if not ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        visible = {stream: state for stream, state in states.items() if caller.may("view", stream)}
        return Readiness(ready=ready, streams=visible)

    needs_metrics = Depends(guard.needs("metrics"))

    @routes.head("/metrics", include_in_schema=False, dependencies=[needs_metrics])
    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {}}}, **responses(Unauthorized, Forbidden)},
        dependencies=[needs_metrics],
    )
    async def scrape(request: Request) -> Response:
        """Everything, in Prometheus' text format, or as OpenMetrics to who asks for that."""
        return await _exposition(metrics, request)

    return routes


def metrics_app(metrics: Metrics) -> ASGIApp:
    """What a listener of its own serves: `/metrics`, to whoever reaches it, and nothing else."""

    async def scrape(request: Request) -> Response:
        return await _exposition(metrics, request)

    return Starlette(routes=[Route("/metrics", scrape)])


async def _exposition(metrics: Metrics, request: Request) -> Response:
    body, content_type = await metrics.exposition(request.headers.get("Accept", ""))
    return Response(body, headers={"Content-Type": content_type})
