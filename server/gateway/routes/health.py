"""For whoever runs the service: `/healthz`, `/readyz` and `/metrics`."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel

from server.gateway.figures.metrics import CONTENT_TYPE, Metrics
from server.gateway.figures.views import StreamState
from server.gateway.streams.streams import Streams
from server.settings import Settings


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """Ready, once every stream of the settings file has left its start behind, and until shutdown begins."""

    ready: bool
    streams: dict[str, StreamState]


def router(streams: Streams, metrics: Metrics, settings: Settings) -> APIRouter:
    routes = APIRouter(tags=["Operation"])
    configured = {stream.id for stream in settings.streams}
    started: set[str] = set()

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz")
    async def healthz() -> Health:
        """The process is alive and its event loop turns."""
        return Health(status="ok")

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", responses={503: {"model": Readiness, "description": "Starting or shutting down"}})
    async def readyz(response: Response) -> Readiness:
        """Whether to send viewers here. A stream that failed or lost its source does not change it."""
        states = {stream.id: stream.state for stream in streams.all()}
        started.update(stream for stream, state in states.items() if state != "starting")
        waiting = (configured & states.keys()) - started
        ready = not waiting and not streams.closing
        if not ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Readiness(ready=ready, streams=states)

    @routes.head("/metrics", include_in_schema=False)
    @routes.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
    async def scrape() -> Response:
        """Everything, in Prometheus' text format."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return routes
