"""`livesr serve` is stopped: viewers of a real service are told, and those that come are sent away."""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from aiortc.mediastreams import MediaStreamError

from tests.server.commands.test_serve import TIMEOUT_S, alive, children, start
from tests.server.gateway.scripted_gateway import Gateway, Viewer, loopback, until  # noqa: F401

SETTINGS = """
[server]
port = 0
drain_s = {drain_s}
[webrtc]
host_addresses = ["127.0.0.1"]
[defaults]
preset = "ultrafast"
keyframe_interval_s = 1.0
ladder = []
[hls]
segment_s = 1.0
[[streams]]
id = "test"
source = "synthetic:?size=160x90&fps=12"
"""
MEDIA = "hls/test/media.m3u8"


@dataclass
class Started:
    process: "subprocess.Popen[str]"
    http: httpx.AsyncClient
    log: Path

    async def status(self) -> int:
        return await asyncio.to_thread(self.process.wait, TIMEOUT_S)

    async def media(self) -> str:
        async def listed() -> str | None:
            answer = await self.http.get(MEDIA)
            return answer.text if answer.status_code == 200 else None

        return await until(listed, "a playlist")


@asynccontextmanager
async def started(folder: Path, *, drain_s: float) -> AsyncIterator[Started]:
    config, log = folder / "livesr.toml", folder / "log"
    config.write_text(SETTINGS.format(drain_s=drain_s))
    process = start("--config", str(config), log=log)
    try:
        line = await asyncio.to_thread(process.stdout.readline)
        url = line.removeprefix("livesr: open ").strip()
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield Started(process, http, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_stop_tells_everyone_and_waits_no_longer(tmp_path):
    async with started(tmp_path, drain_s=600) as service:
        await service.media()
        gateway = Gateway(str(service.http.base_url), service.http, None)
        async with Viewer(gateway, "test", audio=False) as viewer:
            await viewer.sees(3)
            workers = children(service.process.pid)
            service.process.send_signal(signal.SIGTERM)

            async def unready() -> httpx.Response | None:
                answer = await service.http.get("readyz")
                return answer if answer.status_code == 503 else None

            assert not (await until(unready, "it is no longer ready")).json()["ready"]
            # A viewer that is told by BYE: its track has ended, whatever its transports say.
            (watching,) = viewer._tasks
            with pytest.raises(MediaStreamError):
                await asyncio.wait_for(watching, TIMEOUT_S)
            for refused in (
                await service.http.post("api/streams", json={"id": "new", "source": "demo:"}),
                await service.http.post(
                    "whep/test",
                    content=viewer.pc.localDescription.sdp,
                    headers={"Content-Type": "application/sdp"},
                ),
                await service.http.get("hls/test/index.m3u8"),
            ):
                assert refused.status_code == 503, refused.text
                assert refused.json()["detail"] == "the service is shutting down"
                assert refused.headers["Retry-After"] == "5"
            assert service.process.poll() is None, "the player has yet to be told"
            playlist = await service.media()
            assert playlist.endswith("#EXT-X-ENDLIST\n")
            for segment in re.findall(r"^seg-.*$", playlist, re.MULTILINE):
                assert (await service.http.get(f"hls/test/{segment}")).status_code == 200
            assert await service.status() == 0
        assert not any(map(alive, workers))
    log = service.log.read_text()
    assert "Traceback" not in log
    assert "drain cut short" not in log


async def test_a_player_that_never_comes_back_is_waited_for_so_long(tmp_path):
    async with started(tmp_path, drain_s=0.5) as service:
        await service.media()
        service.process.send_signal(signal.SIGTERM)
        assert await service.status() == 0
    log = service.log.read_text()
    assert re.search(r"drain cut short +.*drain_s=0.5", log)
    assert "Traceback" not in log


async def test_a_second_signal_ends_it_at_once(tmp_path):
    async with started(tmp_path, drain_s=600) as service:
        await service.media()
        workers = children(service.process.pid)
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: "service ends" in service.log.read_text(), "the drain has begun")
        service.process.send_signal(signal.SIGTERM)
        assert await service.status() == 0
        await until(lambda: not any(map(alive, workers)), "its workers have ended")
    assert "asked to end again" in service.log.read_text()
