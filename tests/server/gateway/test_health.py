"""Readiness holds on to nothing of streams that are gone."""

import gc
import weakref
from dataclasses import dataclass, field

from fastapi import Response

from server.gateway.auth.guard import Guard
from server.gateway.auth.scopes import EVERYONE
from server.gateway.figures.metrics import Metrics
from server.gateway.limits.refusals import Refusals
from server.gateway.routes.health import router
from server.settings import Settings


class Id(str):
    """A string that tells when nobody has it any more."""


@dataclass
class FakeStream:
    id: str
    state: str = "running"


@dataclass
class FakeStreams:
    streams: list[FakeStream] = field(default_factory=list)
    closing: bool = False

    def all(self) -> list[FakeStream]:
        return self.streams


async def test_a_stream_that_is_gone_is_forgotten():
    streams = FakeStreams()
    guard = Guard(None, Settings().limits, Refusals(lambda reason: None))
    [readyz] = [
        route.endpoint
        for route in router(streams, Metrics(), Settings(), guard).routes
        if route.path == "/readyz" and "GET" in route.methods
    ]
    streams.streams = [FakeStream(Id("cam-1"))]
    forgotten = weakref.ref(streams.streams[0].id)
    assert (await readyz(Response(), EVERYONE)).ready
    streams.streams = []
    assert (await readyz(Response(), EVERYONE)).streams == {}
    gc.collect()
    assert forgotten() is None
