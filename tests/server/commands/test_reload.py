"""SIGHUP to a real service: the file is read again, and a broken one changes nothing."""

import asyncio
import hashlib
import os
import re
import signal
import time

import httpx

from tests.server.commands.test_drain import SETTINGS, started
from tests.server.commands.test_serve import SENTENCE, TIMEOUT_S, start
from tests.server.gateway.scripted_gateway import Gateway, Viewer, loopback, until  # noqa: F401

MORE = '[[streams]]\nid = "more"\nsource = "synthetic:?size=160x90&fps=12"\n'


async def test_a_signal_reads_the_settings_again(tmp_path):
    async with started(tmp_path, drain_s=1) as service:
        config = tmp_path / "livesr.toml"
        gateway = Gateway(str(service.http.base_url), service.http, None)

        async def names() -> list[str]:
            return sorted(stream["id"] for stream in (await service.http.get("api/streams")).json())

        def reload(text: str) -> None:
            config.write_text(text)
            service.process.send_signal(signal.SIGHUP)

        async with Viewer(gateway, "test", audio=False) as viewer:
            await viewer.sees(3)
            plain = SETTINGS.format(drain_s=1)
            reload(plain.replace("port = 0", "port = 1") + MORE)

            async def more() -> bool:
                return await names() == ["more", "test"]

            await until(more, "the added stream")
            await until(lambda: "need a restart" in service.log.read_text(), "what can't change")
            assert re.search(r"need a restart +.*keys=\['server\.port'\]", service.log.read_text())

            reload(plain + "lanes = 99\n")  # of the stream "test", the last table
            await until(lambda: "settings refused" in service.log.read_text(), "the refusal")
            assert "streams.0.lanes=99" in service.log.read_text()
            reload(plain + "[")
            await until(lambda: "not valid TOML" in service.log.read_text(), "the refusal")
            assert await names() == ["more", "test"]
            await viewer.sees(len(viewer.frames[0]) + 5)

            reload(plain + 'encoder = "libx264"\nbitrate_bps = 400000\n')
            await until(
                lambda: "stream changed by the settings" in service.log.read_text(),
                "the changed stream",
            )
            assert await names() == ["test"]
            seen = len(viewer.frames[0])
            await viewer.sees(seen + 20)
            (stream,) = (await service.http.get("api/streams")).json()
            assert stream["output"]["bitrate_bps"] == 400_000
            assert stream["viewers"]["whep"] == 1
            assert stream["worker"]["restarts"] == 0
    assert "Traceback" not in service.log.read_text()


async def test_a_signal_while_it_starts_counts_once_it_has(tmp_path):
    """The settings are a pipe, so that it gets no further than it is to."""
    config, log = tmp_path / "livesr.toml", tmp_path / "log"
    os.mkfifo(config)
    process = start("--config", str(config), log=log)

    def opened() -> int | None:
        """Once somebody reads."""
        assert process.poll() is None
        try:
            return os.open(config, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    try:
        with os.fdopen(await until(opened, "the settings are read"), "w") as settings:
            process.send_signal(signal.SIGHUP)
            settings.write("[server]\nport = 0\n")
        assert await asyncio.to_thread(process.stdout.readline), log.read_text()
        with os.fdopen(await until(opened, "they are read again"), "w") as settings:
            settings.write(f"[server]\nport = 0\n{MORE}")
        await until(lambda: "stream created" in log.read_text(), "what they say now")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_nobody_is_let_in_from_elsewhere_because_auth_has_gone(tmp_path):
    config, log = tmp_path / "livesr.toml", tmp_path / "log"
    world = "[server]\nport = 0\nhost = '0.0.0.0'\n"
    digest = hashlib.sha256(b"a-token").hexdigest()
    config.write_text(f"{world}[[auth.tokens]]\nname = 'me'\nscopes = ['admin']\nsha256 = '{digest}'\n")
    process = start("--config", str(config), log=log)
    try:
        (url,) = re.findall(r"http://\S+", process.stdout.readline())
        config.write_text(world)
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + TIMEOUT_S
        while SENTENCE not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert httpx.get(url + "api/streams").status_code == 401
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        process.stdout.close()
