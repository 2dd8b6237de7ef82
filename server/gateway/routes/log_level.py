"""`/api/log-level`: how much is logged, by this process and by all workers."""

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from server.gateway.auth.guard import Guard
from server.gateway.errors import Forbidden, InvalidStream, Unauthorized, UnreadableBody, responses
from server.gateway.streams.streams import Streams
from server.wire import logs


class LogLevelView(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: logs.LogLevel


def router(streams: Streams, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/api/log-level",
        tags=["Operation"],
        dependencies=[Depends(guard.needs("admin"))],
        responses=responses(Unauthorized, Forbidden),
    )

    @routes.get("")
    async def show_level() -> LogLevelView:
        """From which level on events are logged."""
        return LogLevelView(level=logs.level())

    @routes.put("", responses=responses(UnreadableBody, InvalidStream))
    async def set_level(wanted: LogLevelView) -> LogLevelView:
        """Counts at once, and until the service ends or its settings are read with another level."""
        streams.set_log_level(wanted.level)
        return wanted

    return routes
