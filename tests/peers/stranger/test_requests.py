"""Strangers and HTTP: endless bodies, half requests, bursts, long names, other sites."""

import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from server.settings import Limits
from tests.peers.service import until
from tests.peers.stranger.scene import ADMIN, MOST_MB, VIEWER, Scene, bearer
from tests.server.gateway.scripted_gateway import loopback  # noqa: F401
from tests.server.gateway.test_strangers import SDP, an_offer


def endless(scene: Scene, head: bytes, block: bytes) -> int:
    """Sends a body of 400 MB, or as much of it as is let in; returns how much that was."""
    sent = 0
    with scene.connect(b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n") as raw:
        raw.settimeout(20)
        try:
            while sent < 400_000_000:
                raw.sendall(block)
                sent += len(block)
        except ConnectionError:
            pass
    return sent


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (b"Content-Length: 400000000\r\n", bytes(1 << 20)),
        (b"Transfer-Encoding: chunked\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 200_000),
    ],
    ids=["length", "chunks", "crumbs"],
)
def test_an_endless_body(scene: Scene, head: bytes, block: bytes) -> None:
    before = scene.peak_mb()
    with scene.unnoticed():
        sent = endless(scene, head, block)
    print(f"{sent / 1e6:.0f} MB sent, {scene.peak_mb() - before:.1f} MB more held")
    assert scene.peak_mb() - before < MOST_MB


def test_three_hundred_half_requests(scene: Scene) -> None:
    with ExitStack() as opened, scene.unnoticed():
        waiting = {
            opened.enter_context(scene.connect(b"POST /whep/demo HTTP/1.1\r\nHost: localhost\r\nContent-Le"))
            for _ in range(300)
        }

        def all_cut() -> bool:
            readable, _, _ = select.select(waiting, [], [], 0)
            waiting.difference_update(raw for raw in readable if _ended(raw))
            return not waiting

        until(all_cut, "every connection is cut")


def _ended(raw: socket.socket) -> bool:
    try:
        return not raw.recv(1)
    except ConnectionError:
        return True


async def test_two_hundred_offers_in_a_burst(scene: Scene) -> None:
    offer = await an_offer([])

    def post(_: int) -> httpx.Response:
        return scene.stranger.post("/whep/demo", content=offer, headers=SDP | bearer(VIEWER))

    with scene.unnoticed():
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(post, range(200)))
        elsewhere = scene.service.http.post("/whep/demo", content=offer, headers=SDP)
    assert elsewhere.status_code == 201, "a viewer from elsewhere gets a seat"
    statuses = [answer.status_code for answer in answers]
    # Those of the first who are given up while the burst lasts make room.
    assert 0 < statuses.count(201) <= 2 * Limits().max_pending_per_address
    assert set(statuses) == {201, 429}
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 429)
    until(lambda: scene.viewers() == 1, "the seats are free again")


def test_long_names_of_players(scene: Scene) -> None:
    def ask(length: int, number: int) -> int:
        headers = {"User-Agent": f"{number} " + "x" * length, **bearer(VIEWER)}
        return scene.stranger.get("/hls/demo/media.m3u8", headers=headers).status_code

    until(lambda: ask(10, 0) == 200, "there is a playlist")
    before = scene.peak_mb()
    with scene.unnoticed():
        longest = {ask(50_000, number) for number in range(100)}
        long = {ask(12_000, number) for number in range(1000)}
    assert longest == {431}
    assert 200 in long
    assert long <= {200, 429}
    assert scene.peak_mb() - before < MOST_MB


@pytest.mark.parametrize("path", ["/api/streams", "/whep/demo", "/hls/demo/index.m3u8", "/", "/metrics"])
def test_a_site_of_the_visitors_browser(scene: Scene, path: str) -> None:
    rebound = scene.stranger.get(path, headers={"Host": "evil.example", **bearer(ADMIN)})
    assert rebound.status_code == 421
    origin = {"Origin": "https://evil.example", **bearer(ADMIN)}
    preflight = scene.stranger.options(path, headers={**origin, "Access-Control-Request-Method": "GET"})
    for answer in (rebound, scene.stranger.get(path, headers=origin), preflight):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
