"""What one client may take of a real gateway: bytes, time, connections and requests a second."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from server.gateway.figures.players import Players
from server.gateway.limits.bodies import BodyLimit
from server.gateway.limits.rates import MOST, Rates, origin
from tests.logs import events
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import by_secret, tokens  # noqa: F401

JSON = {"Content-Type": "application/json"}
SDP = {"Content-Type": "application/sdp"}


def quiet() -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False))


class Raw:
    """A connection whose every byte the test decides on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start_s: float) -> None:
        self.reader = reader
        self.writer = writer
        self.start_s = start_s

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed_after_s(self) -> float:
        """From before it was opened until the server ended it; reads whatever comes before."""
        try:
            while await asyncio.wait_for(self.reader.read(1 << 16), 20):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - self.start_s

    async def cut_off_after_s(self, data: bytes, every_s: float) -> float:
        """Until the server ended it, while this is sent again and again and nothing is read."""
        start_s = time.monotonic()
        try:
            while time.monotonic() - start_s < 20:
                await asyncio.wait_for(self.send(data), 20)
                await asyncio.sleep(every_s)
        except ConnectionError:
            pass
        return time.monotonic() - start_s

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def raw_clients(served: Gateway) -> AsyncIterator[Callable[..., Awaitable[Raw]]]:
    """Opens connections. A failed test's would be reported by the next one, so none outlives its test."""
    raws: list[Raw] = []

    async def connect(sent: bytes = b"", *, limit: int = 1 << 16) -> Raw:
        port = int(served.base.rpartition(":")[2])
        start_s = time.monotonic()
        raws.append(raw := Raw(*await asyncio.open_connection("127.0.0.1", port, limit=limit), start_s))
        await raw.send(sent)
        return raw

    try:
        yield connect
    finally:
        for raw in raws:
            raw.leave()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("path", ["/api/streams", "/whep/demo"])
async def test_a_body_above_the_limit_is_refused(method, length, path):
    async with gateway(quiet()) as served:

        async def chunks():
            for _ in range(65):
                yield b" " * 1024

        content = b" " * 65 * 1024 if length else chunks()
        headers = SDP if "whep" in path else JSON
        answer = await served.http.request(method, path, content=content, headers=headers)
        assert answer.status_code == 413
        assert "limits.max_body_bytes=65536" in answer.json()["detail"]
        assert (await served.http.get("/healthz")).status_code == 200


async def test_a_refusal_comes_after_the_body():
    """A proxy whose client still sends may lose what comes before."""
    said = []
    chunks = [{"type": "http.request", "body": bytes(1024), "more_body": more} for more in 64 * [1] + [0]]

    async def receive():
        return chunks.pop(0)

    async def send(message):
        said.append((message["type"], len(chunks)))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"66560")]}
    await BodyLimit(None, max_bytes=65536)(scope, receive, send)
    assert said == [("http.response.start", 0), ("http.response.body", 0)]


async def test_a_body_that_goes_on_for_ever_takes_neither_memory_nor_time():
    async with gateway(quiet(), limits={"client_timeout_s": 1.0}) as served, raw_clients(served) as connect:
        head = b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw = await connect(head + b"Content-Length: 400000000\r\n\r\n")
        assert await raw.cut_off_after_s(b" " * (1 << 20), 0.05) < 3


async def test_half_a_request_is_not_waited_for(caplog):
    halves = (
        b"",
        b"GET / HT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /whep/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
        b"Content-Type: application/sdp\r\n\r\nv=0",
        b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        # a whole one, then half
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT",
    )
    async with gateway(quiet(), limits={"client_timeout_s": 1.0}) as served, raw_clients(served) as connect:
        raws = [await connect(half) for half in halves]
        took_s = await asyncio.gather(*(raw.closed_after_s() for raw in raws))
        assert all(0.8 < seconds < 3 for seconds in took_s), took_s
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_body_in_crumbs_is_cut_off(caplog):
    """Within the limit of its bytes, but each crumb costs its parsing."""
    head = b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with gateway(quiet(), limits={"client_timeout_s": 30.0}) as served, raw_clients(served) as connect:
        raw = await connect(head + b"1\r\nx\r\n" * 10_000)
        assert await raw.closed_after_s() < 3
        [refused] = events(caplog, "refused")
        assert (refused["reason"], refused["count"]) == ("lines", 1)

        async def lines():
            for _ in range(1500):
                yield b"a=candidate:1 1 udp 99 192.0.2.1 5\r\n"

        answer = await served.http.post("/whep/demo", content=lines(), headers=SDP)
        assert answer.status_code == 400, "as many as an offer may have are read"


async def test_a_byte_now_and_then_does_not_help():
    async with gateway(quiet(), limits={"client_timeout_s": 1.0}) as served, raw_clients(served) as connect:
        raw = await connect(b"GET /healthz HTTP/1.1\r\n")
        assert await raw.cut_off_after_s(b"X: y\r\n", 0.1) < 3


async def test_an_answer_that_nobody_reads_is_not_kept():
    async with (
        gateway(ScriptedPlacement(Script(width=640, height=480)), limits={"client_timeout_s": 1.0}) as served,
        raw_clients(served) as connect,
    ):
        playlist = (await served.http.get("/hls/demo/media.m3u8", timeout=20)).text
        segment = next(line for line in playlist.splitlines() if not line.startswith("#"))
        # Requests without end, and no reading: what is answered waits in the server. Many at once, for on a
        # busy machine the segment would be gone before enough of it waits.
        raw = await connect(limit=1)
        request = f"GET /hls/demo/{segment} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        assert await raw.cut_off_after_s(50 * request, 0.05) < 15


async def test_a_connection_between_requests_is_kept():
    async with gateway(quiet(), limits={"client_timeout_s": 0.5}) as served, raw_clients(served) as connect:
        raw = await connect()
        for _ in range(3):
            await raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await raw.reader.readline()).startswith(b"HTTP/1.1 200")
            await raw.reader.readuntil(b"}")
            await asyncio.sleep(1)


async def test_one_address_holds_so_many_connections():
    async with (
        gateway(quiet(), limits={"max_connections_per_address": 5}) as served,
        raw_clients(served) as connect,
    ):
        raws = [await connect() for _ in range(5)]
        with pytest.raises(httpx.TransportError):
            await served.http.get("/healthz")
        raws.pop().leave()

        async def room() -> bool:
            try:
                return (await served.http.get("/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(room, "one has left, one is let in")


async def test_all_addresses_together_hold_so_many_connections():
    async with gateway(quiet(), limits={"max_connections": 3}) as served, raw_clients(served) as connect:
        for _ in range(3):
            await connect()
        with pytest.raises(httpx.TransportError):
            await served.http.get("/healthz")


async def test_long_headers_are_refused():
    async with gateway(quiet(), limits={"max_header_bytes": 4096}) as served:
        for request in ({"headers": {"User-Agent": "x" * 5000}}, {"params": {"q": "x" * 5000}}):
            answer = await served.http.get("/healthz", **request)
            assert answer.status_code == 431
            assert "limits.max_header_bytes=4096" in answer.json()["detail"]
        assert (await served.http.get("/healthz", headers={"User-Agent": "x" * 3000})).status_code == 200


async def test_so_many_hls_requests_a_second():
    async with gateway(quiet(), limits={"hls_requests_per_s": 5}) as served:

        async def ask() -> httpx.Response:
            return await served.http.get("/hls/demo/seg-1.m4s")

        answers = [await ask() for _ in range(10)]
        assert {answer.status_code for answer in answers} == {404}
        answers = await asyncio.gather(*(ask() for _ in range(60)))
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["Retry-After"] == "1"
        assert "limits.hls_requests_per_s=5" in refused.json()["detail"]
        assert (await served.http.get("/healthz")).status_code == 200
        assert (await served.metrics())['livesr_refused_total{reason="hls_rate"}'] >= 1
        await asyncio.sleep(1)
        assert (await served.http.get("/hls/demo/seg-1.m4s")).status_code == 404


async def test_so_many_wrong_tokens_a_minute():
    limits = {"failed_logins_per_min": 5}
    async with gateway(quiet(), limits=limits, **tokens(right=["admin"])) as served:

        async def ask(token: str) -> httpx.Response:
            return await served.http.get("/api/streams", headers={"Authorization": f"Bearer {token}"})

        answers = [await ask(f"wrong-{number}") for number in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
        assert "limits.failed_logins_per_min=5" in answers[-1].json()["detail"]
        assert (await ask("right")).status_code == 200, "a neighbour's mistakes lock nobody out"
        assert (await served.http.get("/api/streams")).status_code == 401, "no token is no wrong token"


def test_players_names_take_no_room():
    players = Players()
    for number in range(1000):
        players.saw(f"{number} " + "x" * 50_000, 1.0)
    assert players.count(1.0) == 1000
    assert sum(len(name) for name in players._players) == 16_000


def test_a_rate_is_a_burst_and_then_so_many_a_second():
    rates = Rates(per_s=2.0, burst=4.0)
    for _ in range(4):
        assert rates.wait_s("a", 10.0) == 0
        rates.take("a", 10.0)
    assert rates.wait_s("a", 10.0) == 0.5
    assert rates.wait_s("b", 10.0) == 0
    assert rates.wait_s("a", 10.5) == 0
    assert rates.wait_s("a", 1000.0) == 0
    for number in range(2 * MOST):
        rates.take(str(number), 1000.0)
    assert len(rates._buckets) == MOST


@pytest.mark.parametrize(
    ("host", "counts_for"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_an_address_counts_for_its_customer(host, counts_for):
    assert origin(host) == counts_for
