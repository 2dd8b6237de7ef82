"""Sources that go and come back, with real publishers, under viewers that stay: WebRTC by aiortc, HLS by its
playlist and a decoder of its segments."""

import asyncio
import contextlib
import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import aioice.ice
import av
import httpx
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from tests.peers.service import Service, until
from tests.peers.test_publishers import encoder, waiting
from tests.ports import free_port

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class Viewer:
    """One peer connection; what it sees and hears, in the test's own event loop."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.lumas: list[np.ndarray] = []
        self.loud = 0
        self.heard = 0

    async def watch(self, service: Service, stream: str) -> None:
        self._peer = RTCPeerConnection()
        video = self._peer.addTransceiver("video", direction="recvonly").receiver
        audio = self._peer.addTransceiver("audio", direction="recvonly").receiver
        await self._peer.setLocalDescription(await self._peer.createOffer())
        answer = await asyncio.to_thread(
            service.http.post, f"/whep/{stream}", content=self._peer.localDescription.sdp,
            headers={"content-type": "application/sdp"},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        await self._peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        self._tasks = [asyncio.create_task(self._see(video)), asyncio.create_task(self._hear(audio))]

    async def _see(self, receiver) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await receiver.track.recv()
                self.sizes.append((frame.width, frame.height))
                self.lumas.append(frame.to_ndarray(format="gray"))

    async def _hear(self, receiver) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await receiver.track.recv()
                self.heard += 1
                self.loud += bool(np.abs(frame.to_ndarray().astype(int)).max() > 500)

    @property
    def connected(self) -> bool:
        return self._peer.connectionState == "connected"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._peer.close()


class Player:
    """Reads a playlist again and again, as players do, and keeps each segment with its init."""

    def __init__(self, service: Service, stream: str) -> None:
        self._http = httpx.Client(base_url=f"{service.url}hls/{stream}/", timeout=30)
        self.segments: dict[str, tuple[str, bool]] = {}  # name → init, whether it begins a discontinuity
        self.data: dict[str, bytes] = {}
        self.playlist = ""

    def poll(self) -> None:
        answer = self._http.get("media.m3u8")
        if answer.status_code != 200:
            return
        self.playlist = answer.text
        init, discontinuity = "", False
        for line in answer.text.splitlines():
            if line.startswith("#EXT-X-MAP"):
                init = line.partition('URI="')[2].rstrip('"')
            elif line == "#EXT-X-DISCONTINUITY":
                discontinuity = True
            elif line and not line.startswith("#"):
                if line not in self.segments:
                    self.segments[line] = init, discontinuity
                    for name in (init, line):
                        self.data[name] = self._http.get(name).content
                discontinuity = False

    def close(self) -> None:
        self._http.close()

    @property
    def discontinuities(self) -> int:
        return sum(discontinuity for _, discontinuity in self.segments.values())

    def shown(self, folder: Path) -> list[tuple[int, float]]:
        """Width and time of each picture, by one decoder for each run between discontinuities."""
        runs: list[bytes] = []
        for name, (init, discontinuity) in self.segments.items():
            if not runs or discontinuity:
                runs.append(self.data[init])
            runs[-1] += self.data[name]
        shown = []
        for number, run in enumerate(runs):
            path = folder / f"{number}.mp4"
            path.write_bytes(run)
            with av.open(str(path)) as container:
                shown += [(frame.width, float(frame.time)) for frame in container.decode(video=0)]
        return shown


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves out 127.0.0.1 by itself."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


async def when(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


def dark(viewer: Viewer) -> bool:
    """The slate: its edges are dimmed, and something bright is written in the middle."""
    luma = viewer.lumas[-1]
    third = len(luma) // 3
    return bool(luma[:third].max() < 130 and luma[third : 2 * third].max() > 140)


RETURNS: dict[str, dict[str, object]] = {
    "the same": {},
    "another size": {"size": "200x120"},
    "another rate": {"rate": 25},
    "without sound": {"sound": False},
    "another codec": {"codec": "libx265"},
}


@pytest.mark.parametrize("change", RETURNS)
async def test_a_publisher_goes_and_comes_back_and_viewers_stay(
    service: Service, ffmpeg: str, spawn: Spawn, tmp_path: Path, change: str
) -> None:
    changes = dict(RETURNS[change])
    codec = str(changes.pop("codec", "libx264"))
    viewer = Viewer()
    with contextlib.ExitStack() as stack:
        where = await asyncio.to_thread(
            stack.enter_context, waiting(service, "away", "rtmp", free_port(), "live/key")
        )
        publisher = spawn(*encoder(ffmpeg, where))
        await asyncio.to_thread(service.wait_for, "away", "running")
        player = Player(service, "away")
        stack.callback(player.close)
        await viewer.watch(service, "away")
        await when(
            lambda: player.poll() or (len(player.segments) >= 2 and viewer.loud and viewer.sizes), "both play"
        )
        assert viewer.sizes[-1] == (320, 180)
        started = player.discontinuities  # a busy machine may stumble at the start
        publisher.kill()
        publisher.wait()
        await asyncio.to_thread(service.wait_for, "away", "reconnecting")
        gone, frames = len(viewer.lumas), service.show("away")["frames"]["total"]
        await when(
            lambda: player.poll() or (len(viewer.lumas) >= gone + 12 and dark(viewer)), "the slate is seen"
        )
        heard, loud, segments = viewer.heard, viewer.loud, len(player.segments)
        await when(
            lambda: player.poll() or (len(player.segments) >= segments + 2 and viewer.heard > heard + 40),
            "the slate goes on, in HLS and in sound",
        )
        assert viewer.loud == loud, "silently"
        now = service.show("away")
        assert now["state"] == "reconnecting"
        assert now["frames"]["total"] <= frames + 3, "a slate is no frame"
        assert player.discontinuities == started, player.playlist

        command = [word.replace("libx264", codec) for word in encoder(ffmpeg, where, **changes)]
        spawn(*(word for word in command if codec == "libx264" or word not in ("-tune", "zerolatency")))
        await asyncio.to_thread(service.wait_for, "away", "running")
        width = 2 * int(str(changes.get("size", "160x90")).partition("x")[0])
        back = len(viewer.lumas)
        await when(
            lambda: (
                player.poll()
                or (len(viewer.lumas) > back + 10 and viewer.sizes[-1][0] == width and not dark(viewer))
            ),
            "the picture is back",
        )
        segments = max(segments + 3, len(player.segments))
        await when(lambda: player.poll() or len(player.segments) >= segments + 2, "in HLS, too")
        if changes.get("sound", True):
            loud = viewer.loud
            await when(lambda: viewer.loud > loud + 20, "and its sound")
        assert viewer.connected
        await viewer.close()
    assert player.discontinuities - started <= (change != "the same"), player.playlist
    shown = await asyncio.to_thread(player.shown, tmp_path)
    times = [time_s for _, time_s in shown]
    assert times == sorted(times)
    assert max(b - a for a, b in itertools.pairwise(times)) < 2.0
    assert shown[-1][0] == width
