"""`/api/events`: whoever listens hears what happens, of the streams that they may view."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from server.gateway import events
from server.gateway.errors import LimitReached
from server.gateway.events import Events
from server.gateway.limits.refusals import Refusals
from server.gateway.routes import events as routes
from server.settings import Limits
from server.wire.messages import Reconnecting, Stepped
from tests.server.gateway.scripted_gateway import TIMEOUT_S, Gateway, gateway, until
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens


class Ear:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def line(self) -> str:
        return await asyncio.wait_for(anext(self._lines), TIMEOUT_S)

    async def event(self) -> tuple[str, dict]:
        """The next one's kind and data."""
        while not (line := await self.line()).startswith("event: "):
            pass
        return line.removeprefix("event: "), json.loads((await self.line()).removeprefix("data: "))

    async def hears(self, kind: str, **facts: object) -> dict:
        """The next event of that kind and with these facts."""
        while True:
            heard, told = await self.event()
            if heard == kind and facts.items() <= told.items():
                return told

    async def is_over(self) -> bool:
        async for _ in self._lines:
            pass
        return True


@asynccontextmanager
async def listening(served: Gateway, token: str | None = None) -> AsyncIterator[Ear]:
    headers = bearer(token) if token else {}
    async with served.http.stream("GET", "/api/events", headers=headers, timeout=TIMEOUT_S) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Ear(response)


async def test_a_stream_from_its_making_to_its_end():
    async with gateway() as served:
        await served.in_state("running")
        async with listening(served) as ear:
            first = await ear.hears("state", stream="demo")
            assert (first["state"], first["reason"]) == ("running", "")
            assert first["at"].endswith("Z")
            body = {"id": "new", "source": "synthetic:", "upscale_when": "always"}
            await served.http.post("/api/streams", json=body)
            await ear.hears("created", stream="new")
            await ear.hears("state", stream="new", state="running")
            served.worker.say(Stepped(level=1, reason="p95 above the budget"))
            await ear.hears("step", stream="new", level=1, reason="p95 above the budget")
            await served.http.patch("/api/streams/new", json={"lanes": 2})
            await ear.hears("moved", stream="new")
            await ear.hears("changed", stream="new", restarted=["worker"])
            served.worker.die()
            await ear.hears("restart", stream="new", reason="the worker was ended by SIGKILL")
            await ear.hears("state", stream="new", state="running")
            served.worker.hang()
            served.worker.say(Reconnecting(reason="rtsp://u:secret@h/: refused", retry_in_s=1.0))
            told = await ear.hears("state", stream="new", state="reconnecting")
            assert "secret" not in told["reason"]
            await served.http.delete("/api/streams/new")
            await ear.hears("state", stream="new", state="stopped")
            await ear.hears("deleted", stream="new")


async def test_only_of_streams_that_the_caller_may_view():
    async with gateway(streams=("mine", "other"), **tokens(me=["admin"], them=["view:mine"])) as served:
        assert (await served.http.get("/api/events")).status_code == 401
        async with listening(served, "them") as ear:
            heard = await ear.hears("state")
            assert heard["stream"] == "mine"
            for stream in ("other", "mine"):
                await served.http.delete(f"/api/streams/{stream}", headers=bearer("me"))
            while heard.get("state") != "stopped":
                heard = await ear.hears("state")
                assert heard["stream"] == "mine"


async def test_all_of_many_streams_are_told_before_what_happens_and_at_the_end(monkeypatch):
    monkeypatch.setattr(events, "QUEUE", 16)
    names = tuple(f"s{number}" for number in range(40))
    placement = ScriptedPlacement(Script(live=False))
    limits = {"max_streams": len(names)}
    async with gateway(placement, streams=names, limits=limits) as served, listening(served) as ear:
        served.worker.say(Stepped(level=1, reason="late"))
        told = [await ear.event() for _ in names]
        assert [(kind, data["stream"]) for kind, data in told] == [("state", name) for name in names]
        await ear.hears("step", stream=names[-1])
        await served.app.drain()
        stopped = [await ear.hears("state", state="stopped") for _ in names]
        assert [data["stream"] for data in stopped] == list(names)


async def test_a_listener_is_told_that_the_line_is_up(monkeypatch):
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.1)
    async with gateway(streams=()) as served, listening(served) as ear:
        assert await ear.line() == ": still here"


async def test_whoever_listened_for_long_asks_again(monkeypatch):
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(routes, "LONGEST_S", 0.3)
    async with gateway(streams=()) as served, listening(served) as ear:
        assert await asyncio.wait_for(ear.is_over(), TIMEOUT_S)


async def test_listeners_are_limited_and_leave_their_seats():
    limits = {"max_listeners": 2, "max_listeners_per_address": 1}
    async with gateway(streams=(), limits=limits) as served:
        async with listening(served):
            refused = await served.http.get("/api/events")
            assert refused.status_code == 429
            assert "limits.max_listeners_per_address=1" in refused.json()["detail"]

        async def let_in() -> bool:
            async with served.http.stream("GET", "/api/events") as response:
                return response.status_code == 200

        await until(let_in, "the seat is free again")
    hub = Events(Limits(max_listeners=1), Refusals(lambda reason: None))
    hub.join("192.0.2.1", lambda stream: True)
    with pytest.raises(LimitReached, match=r"limits\.max_listeners=1"):
        hub.join("192.0.2.2", lambda stream: True)


async def test_a_slow_listener_is_cut_off_and_nobody_waits_for_it():
    refused = []
    hub = Events(Limits(), Refusals(refused.append))
    slow = hub.join("192.0.2.1", lambda stream: True)
    quick = hub.join("192.0.2.1", lambda stream: True)
    for number in range(3 * events.QUEUE):
        hub.tell("step", "demo", level=number % 2, reason="")
        assert b"event: step" in await quick.next()
    assert refused == ["slow_client"]
    for _ in range(events.QUEUE):  # what it had room for
        await slow.next()
    with pytest.raises(events.ListenerEnded):
        await slow.next()


async def test_listeners_do_not_hold_up_the_end():
    async with gateway() as served:
        await served.in_state("running")
        async with listening(served) as ear:
            await ear.hears("state")
            await served.app.drain()
            await ear.hears("state", state="stopped")
            assert await asyncio.wait_for(ear.is_over(), TIMEOUT_S)
            assert (await served.http.get("/api/events")).status_code == 503
