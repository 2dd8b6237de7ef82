"""Requests that another gateway answers, on their way to it."""

import asyncio
import contextlib

from server.gateway.limits.connections import Connections
from server.gateway.limits.refusals import Refusals
from server.gateway.placement.homes import Member, View
from server.gateway.routes.forward import Forward
from server.gateway.streams.fleet import Fleet
from server.settings import Settings
from server.wire.hello import DoorAddress
from tests.server.gateway.fleets import Record
from tests.server.gateway.scripted_gateway import until

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Home:
    """Answers at once, but for what is to wait."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.waiting = self.visitors = 0

    async def come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visitors += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.targets.append(head.split(b" ")[1].decode())
                if "wait" in self.targets[-1]:
                    self.waiting += 1
                    await reader.read()
                    self.waiting -= 1
                    break
                writer.write(ANSWER)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.visitors -= 1


@contextlib.asynccontextmanager
async def passing_on():
    """The home, and what asks it for a path, and returns the status, or None where there was no answer."""
    home, forward = Home(), Forward(Fleet(Record(), "http://127.0.0.1:1"))
    server = await asyncio.start_server(home.come, "127.0.0.1", 0, backlog=256)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def ask(target: str, left: asyncio.Event | None = None, method: str = "GET") -> int | None:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [],
            "client": ("192.0.2.1", 1),
        }
        said, read = [], False

        async def receive():
            nonlocal read
            if read:
                await (left or asyncio.Event()).wait()
                return {"type": "http.disconnect"}
            read = True
            return {"type": "http.request", "body": b""}

        async def send(message) -> None:
            said.append(message)

        await forward(url, scope, receive, send)
        return said[0]["status"] if said else None

    try:
        yield home, ask
    finally:
        await forward.close()
        await until(lambda: not home.visitors, "everyone has left")
        server.close()


async def test_requests_that_wait_hold_up_no_other():
    async with passing_on() as (home, ask):
        waiting = [asyncio.create_task(ask("/hls/s/wait")) for _ in range(110)]
        await until(lambda: home.waiting == len(waiting), "all are there")
        assert await ask("/api/streams/s") == 204
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_a_client_that_leaves_ends_its_request_but_no_change():
    async with passing_on() as (home, ask):
        left = asyncio.Event()
        reads = asyncio.create_task(ask("/hls/s/wait", left))
        changes = asyncio.create_task(ask("/api/streams/s/wait", left, "POST"))
        await until(lambda: home.waiting == 2, "both are there")
        left.set()
        assert await asyncio.wait_for(reads, 10) is None
        await until(lambda: home.waiting == 1, "it is over there, too")
        assert not changes.done()
        changes.cancel()
        await asyncio.wait([changes])


async def test_a_path_is_passed_on_as_it_is():
    """It has been authorised by its first part."""
    asked = ["/api/streams/s/../../../metrics", "/hls/s/%2e%2e/x?a=%2F..&b", "/api/streams/s#x", "/hls//s/?"]
    async with passing_on() as (home, ask):
        assert {await ask(target) for target in asked} == {204}
        assert home.targets == [*asked[:3], "/hls//s/"]


def test_another_gateways_connections_are_its_clients():
    settings = Settings.model_validate({"limits": {"max_connections_per_address": 1, "max_connections": 4}})
    fleet = Fleet(Record(), "http://127.0.0.1:1")
    connections = Connections(
        settings.limits, Refusals(lambda reason: None), proxies=(), gateways=fleet.addresses
    )
    assert [connections.enter("192.0.2.1") for _ in range(2)] == [True, False]
    door = DoorAddress(host="192.0.2.1", port=1, fingerprint="0" * 64)
    other = {"other": Member(url="http://192.0.2.1", door=door)}
    fleet._view = View(epoch="", version=1, gateways=other, homes={})
    assert [connections.enter("192.0.2.1") for _ in range(4)] == [True, True, True, False]
