"""A real gateway on a free loopback port, its workers scripted, and viewers of it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aioice.ice
import av
import httpx
import pytest
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from server.gateway.app import Gateway as App
from server.gateway.app import create_app
from server.gateway.limits.connections import Connections, guarded
from server.gateway.limits.refusals import Refusals
from server.gateway.placement import Cluster
from server.gateway.placement.capacity import Capacity
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.kept import KeptStreams
from server.gateway.webrtc.peer import Peer
from server.settings import Settings
from tests.server.gateway.scripted_worker import ScriptedPlacement, ScriptedWorker

TIMEOUT_S = 60.0  # of a machine that is busy with other things


async def until(condition, what: str, timeout_s: float = TIMEOUT_S):
    """Waits for what `condition` returns (or the coroutine it makes) to be true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Gateway:
    base: str
    http: httpx.AsyncClient
    placement: ScriptedPlacement
    app: App | None = None

    @property
    def worker(self) -> ScriptedWorker:
        """The one that runs now."""
        return self.placement.workers[-1]

    async def stream(self, name: str = "demo") -> dict:
        return (await self.http.get(f"/api/streams/{name}")).json()

    async def in_state(self, state: str, name: str = "demo") -> dict:
        async def there() -> dict | None:
            stream = await self.stream(name)
            return stream if stream.get("state") == state else None

        return await until(there, f"{name} is {state}")

    def peers(self) -> list[Peer]:
        """The WebRTC viewers that there are."""
        assert self.app is not None
        return [peer for _, peer in self.app._sessions._peers.values()]

    async def metrics(self) -> dict[str, float]:
        lines = (await self.http.get("/metrics")).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@contextlib.asynccontextmanager
async def gateway(
    placement: ScriptedPlacement | None = None,
    *,
    streams: tuple[str, ...] = ("demo",),
    source: str = "synthetic:",
    capacity: Capacity | None = None,
    kept: KeptStreams | None = None,
    cluster: Cluster | None = None,
    fleet: Fleet | None = None,
    port: int = 0,
    **tables,
) -> AsyncIterator[Gateway]:
    """Serves until the block ends; `tables` are settings. Streams run unwatched unless told otherwise."""
    placement = placement or ScriptedPlacement()
    tables["defaults"] = {"upscale_when": "always"} | tables.get("defaults", {})
    settings = Settings.model_validate(
        {
            "webrtc": {"host_addresses": ["127.0.0.1"]},
            "streams": [{"id": name, "source": source} for name in streams],
            **tables,
        }
    )
    connections = Connections(settings.limits, Refusals(lambda reason: None), proxies=())
    app = create_app(settings, placement, capacity=capacity, kept=kept, cluster=cluster, fleet=fleet)
    async with serving(app, guarded(connections), port) as base, httpx.AsyncClient(base_url=base) as http:
        yield Gateway(base, http, placement, app)


@contextlib.asynccontextmanager
async def serving(app, protocol="auto", port=0) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, http=protocol, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done(), "the gateway listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class Viewer:
    """An independent WHEP viewer: aiortc's peer connection, its decoder, its jitter buffer."""

    def __init__(
        self,
        gateway: Gateway,
        stream: str = "demo",
        *,
        videos: int = 1,
        audio: bool = True,
        rendition: str | None = None,
    ) -> None:
        self.gateway = gateway
        self.stream = stream
        self.query = {"rendition": rendition} if rendition else {}
        self.frames: list[list[av.VideoFrame]] = [[] for _ in range(videos)]
        self.sound: list[av.AudioFrame] = []
        self.location = ""
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for _ in range(videos):
            self.pc.addTransceiver("video", direction="recvonly")
        if audio:
            self.pc.addTransceiver("audio", direction="recvonly")
        self._tasks: list[asyncio.Task[None]] = []

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def __aenter__(self) -> "Viewer":
        response = await self.gateway.http.post(
            f"/whep/{self.stream}",
            content=self.to_gateway(await self.offer()),
            headers={"Content-Type": "application/sdp"},
            params=self.query,
        )
        assert response.status_code == 201, response.text
        self.response = response
        self.location = response.headers["Location"]
        answer = await self.from_gateway(response.text)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        videos = [r.track for r in self.pc.getReceivers() if r.track.kind == "video"]
        for track, frames in zip(videos, self.frames, strict=True):
            self._tasks.append(asyncio.create_task(self._watch(track, frames)))
        for receiver in self.pc.getReceivers():
            if receiver.track.kind == "audio":
                self._tasks.append(asyncio.create_task(self._watch(receiver.track, self.sound)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pc.close()

    def to_gateway(self, offer: str) -> str:
        return offer

    async def from_gateway(self, answer: str) -> str:
        return answer

    async def _watch(self, track, frames: list) -> None:
        while True:
            frames.append(await track.recv())

    async def sees(self, count: int, video: int = 0) -> list[av.VideoFrame]:
        await until(
            lambda: len(self.frames[video]) >= count, f"{count} frames; {len(self.frames[video])} came"
        )
        return self.frames[video]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewers' side of ICE stays on loopback, which aioice leaves out by itself."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
