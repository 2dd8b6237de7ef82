"""Chromium and aiortc watch at the same time through one UDP port."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.peers.browser import chromium
from tests.peers.service import Service, running
from tests.peers.test_aiortc import loopback, watch
from tests.ports import free_port

__all__ = ["loopback"]

SOURCE, SIZE = "synthetic:?size=160x90&fps=12", "320 × 180"
REMOTE = """
    const done = arguments[0];
    pc.getStats().then((stats) => {
        const pair = [...stats.values()].find((e) => e.type === "candidate-pair" && e.nominated);
        done(stats.get(pair.remoteCandidateId).port);
    });
"""
SHOW = """
    const Real = RTCPeerConnection;
    window.RTCPeerConnection = class extends Real {
        constructor(options) { super(options); window.pc = this; }
    };
"""


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    port = free_port()
    with running(tmp_path_factory.mktemp("shared"), webrtc=f"udp_ports = [{port}, {port}]") as service:
        yield service, port


async def test_viewers_of_two_kinds_at_once(
    shared: tuple[Service, int], program: Callable[[str, str], str]
) -> None:
    service, port = shared
    executable, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    with service.stream("cam", SOURCE), chromium(executable, driver, service.url) as page:
        await asyncio.to_thread(service.wait_for, "cam", "running")
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SHOW})
        page.open("cam")
        await asyncio.to_thread(page.plays, SIZE)
        assert page.driver.execute_async_script(REMOTE) == port
        for _ in range(2):
            both = await asyncio.gather(*(watch(service, "cam", 12) for _ in range(2)))
            assert [len(frames) for frames in both] == [12, 12]
        await asyncio.to_thread(page.plays, SIZE)
        page.driver.refresh()
        await asyncio.to_thread(page.plays, SIZE)
        assert page.driver.execute_async_script(REMOTE) == port
        page.open("none")
