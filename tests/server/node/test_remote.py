"""Streams whose workers are on hosts that are reached over TLS."""

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.gateway.placement.remote import HostUnreachable, connect
from server.offline.idle_hosts import IdleHost
from server.settings import Limits, StreamSettings
from server.wire import door
from server.wire.door import Visitor
from server.wire.hello import HELLO_BYTES, Ticket, wire_version
from server.wire.messages import (
    EngineLoad,
    Heartbeat,
    PublishedData,
    Stepped,
    StepUp,
    Stop,
    WorkerJob,
)
from server.wire.tls import gateway_context, host_context
from tests.server.gateway.scripted_gateway import Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.node.hosts import (
    AheadClock,
    AheadPlacement,
    Hosts,
    another_version,
    forged,
    host_here,
    host_process,
)

AHEAD_S = 4321.5


def job(**fields) -> WorkerJob:
    settings = {"id": "demo", "source": "synthetic:"} | fields
    return StreamSettings.model_validate(settings).job(Limits())


async def test_a_host_whose_clock_is_another(monkeypatch, tmp_path):
    """What viewers and figures see is as if it were on this machine; a jump of that clock is noticed."""
    clock = AheadClock(monkeypatch, AHEAD_S)
    workers = AheadPlacement(clock)
    async with host_here(workers, tmp_path, "attic") as host:
        placement = Hosts()
        placement.hosts = [host]
        async with gateway(placement) as served, Viewer(served) as viewer:
            frames = await viewer.sees(20)
            assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
            await until(lambda: viewer.sound, "sound")

            async def told() -> dict | None:
                stream = await served.stream()
                return stream if stream["worker"]["pid"] is None and stream["worker"]["rss_bytes"] else None

            stream = await until(told, "a heartbeat")
            assert stream["worker"]["node"] == "attic"
            assert 0 <= stream["latency_s"]["p50"] < 5
            label = '{node="attic",stream="demo"}'
            metrics = await served.metrics()
            error_s = metrics[f"livesr_worker_clock_error_seconds{label}"]
            assert 0 < error_s < 1
            assert abs(metrics[f"livesr_worker_clock_offset_seconds{label}"] - AHEAD_S) <= error_s

            before = frames[-1].pts
            clock.ahead_s += 2.0
            await until(lambda: len(workers.workers) == 2, "another worker is started")
            assert workers.workers[1].job.video_after > (time.monotonic() + AHEAD_S) * 90_000
            seen = len(viewer.frames[0])
            await viewer.sees(seen + 5)
            assert viewer.frames[0][-1].pts - before < 90_000 * 60
            assert viewer.pc.connectionState == "connected"


async def test_a_jump_is_the_reason(monkeypatch, tmp_path, caplog):
    clock = AheadClock(monkeypatch, AHEAD_S)
    async with host_here(AheadPlacement(clock), tmp_path, "attic") as host:
        placement = Hosts()
        placement.hosts = [host]
        async with gateway(placement) as served:
            await served.in_state("running")
            clock.ahead_s -= 100
            await until(lambda: "the clock of its host jumped" in caplog.text, "the reason is logged")


async def test_who_may_not_come_in_is_told_why(monkeypatch, tmp_path):
    async with host_here(ScriptedPlacement(), tmp_path, "attic") as host:
        ticket = await host.admit("demo")
        with pytest.raises(HostUnreachable, match="is not the host on attic: its certificate is"):
            await connect(forged(ticket, fingerprint="0" * 64), job())
        with pytest.raises(HostUnreachable, match="the host on attic refuses: nobody of that secret"):
            await connect(forged(ticket, secret=bytes(32)), job())
        with pytest.raises(HostUnreachable, match="was admitted for stream 'other'"):
            await connect(ticket, job(id="other"))
        with (
            another_version(monkeypatch),
            pytest.raises(
                HostUnreachable, match=r"this host speaks .*, the gateway 0\.0\.9\+beef"
            ) as refusal,
        ):
            await connect(ticket, job())
        assert wire_version() in str(refusal.value)
        worker = await connect(ticket, job())
        with pytest.raises(HostUnreachable, match="nobody of that secret"):
            await connect(ticket, job())  # a second time
        await worker.stop(at_once=True)
        monkeypatch.setattr("server.gateway.placement.remote.CONNECT_TIMEOUT_S", 0.3)
        with pytest.raises(HostUnreachable, match="the host on attic can't be reached"):
            await connect(forged(ticket, port=1), job())


async def test_streams_that_start_together_say_hello_a_few_at_a_time(monkeypatch, tmp_path):
    """Each has three seconds for it, which a thousand handshakes at once would take longer than."""
    strangers = []

    class Counting(Visitor):
        async def next(self):
            if self.decoder.most_bytes != HELLO_BYTES:
                return await super().next()
            strangers.append(strangers[-1] + 1 if strangers else 1)
            await asyncio.sleep(0.2)
            strangers.append(strangers[-1] - 1)
            return await super().next()

    monkeypatch.setattr("server.wire.door.Visitor", Counting)
    async with host_here(IdleHost(), tmp_path) as host:
        jobs = [job(id=f"s{number}") for number in range(40)]
        workers = await asyncio.gather(*[connect(await host.admit(job.stream), job) for job in jobs])
        assert len(workers) == 40
        assert 8 < max(strangers) <= 16
        await asyncio.gather(*(worker.stop(at_once=True) for worker in workers))


async def test_who_never_begins_with_tls_is_cut_off(monkeypatch, tmp_path):
    monkeypatch.setattr(door, "_HELLO_S", 0.2)
    async with host_here(ScriptedPlacement(), tmp_path) as host:
        ticket = await host.admit("demo")
        reader, writer = await asyncio.open_connection(ticket.host, ticket.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_who_has_not_begun_with_tls_counts_as_a_stranger(monkeypatch, tmp_path):
    monkeypatch.setattr(door, "_MOST_STRANGERS", 3)
    monkeypatch.setattr(door, "_HELLO_S", 60.0)
    async with host_here(ScriptedPlacement(), tmp_path) as host:
        ticket = await host.admit("demo")
        silent = [await asyncio.open_connection(ticket.host, ticket.port) for _ in range(4)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
        done, held = await asyncio.wait(ended, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(held)) == (1, 3)
        with pytest.raises(HostUnreachable):
            await connect(ticket, job())
        for _, writer in silent:
            writer.close()
        await asyncio.wait(held)
        worker = await until_connected(ticket)
        await worker.stop(at_once=True)


async def until_connected(ticket):
    while True:
        with contextlib.suppress(HostUnreachable):
            return await connect(ticket, job())
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "bytes_sent",
    [b"\xff\xff\xff\xff", (5000).to_bytes(4, "big") + b"x", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\xc1"],
    ids=["endless", "large", "http", "nonsense"],
)
async def test_strangers_are_refused_and_others_go_on(tmp_path, bytes_sent):
    async with host_here(ScriptedPlacement(), tmp_path) as host:
        worker = await connect(await host.admit("demo"), job())
        ticket = await host.admit("demo")
        reader, writer = await asyncio.open_connection(ticket.host, ticket.port, ssl=gateway_context())
        writer.write(bytes_sent)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert b"Refused" in answer
        writer.close()
        assert await anext(worker.messages())
        await worker.stop()


async def test_a_host_that_refuses_says_why(tmp_path):
    async with host_here(ScriptedPlacement(Script(refuse="every GPU is full")), tmp_path, "attic") as host:
        with pytest.raises(HostUnreachable, match="the host on attic refuses: every GPU is full"):
            await connect(await host.admit("demo"), job())


async def test_a_worker_that_is_stopped_says_how_it_ended(tmp_path):
    workers = ScriptedPlacement()
    async with host_here(workers, tmp_path) as host:
        worker = await connect(await host.admit("demo"), job())
        assert await worker.stop() == "the worker was ended by SIGKILL"
        assert isinstance(workers.workers[0].received[-1], Stop)
        assert await worker.stop() == "the worker was ended by SIGKILL"


async def test_a_gateway_that_goes_leaves_no_worker(tmp_path):
    workers = ScriptedPlacement()
    async with host_here(workers, tmp_path) as host:
        worker = await connect(await host.admit("demo"), job())
        worker.abort()
        await until(lambda: workers.workers[0].ended_at_once, "its worker is ended")


async def test_a_gateway_that_falls_silent_is_told_why(monkeypatch, tmp_path):
    monkeypatch.setattr("server.node.session._GONE_S", 0.3)
    async with host_here(ScriptedPlacement(), tmp_path) as host:
        worker = await connect(await host.admit("demo"), job())
        worker._asking.cancel()
        async with asyncio.timeout(10):
            async for _ in worker.messages():
                pass
        assert await worker.stop() == "the gateway was silent for 0.3 s"


async def test_a_connection_that_is_given_up_before_it_is_answered_is_closed():
    met, gone = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Hello" in await reader.read(1 << 16)
        met.set()
        with contextlib.suppress(OSError):
            await reader.read()
        gone.set()
        writer.close()

    context, known_by = host_context()
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        ticket = Ticket(host="127.0.0.1", port=port, fingerprint=known_by, secret=bytes(32), node="attic")
        connecting = asyncio.create_task(connect(ticket, job()))
        await asyncio.wait_for(met.wait(), 10)
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await asyncio.wait_for(gone.wait(), 10)


async def test_a_stream_steps_up_where_its_own_machine_has_room(monkeypatch, tmp_path):
    steady = Heartbeat(queues={}, rss_bytes=1, cpu_s=1, steady=True, frame_cpu_s=(0.01, 0.002))
    idle = {"here": 0.0, "there": 0.0}
    monkeypatch.setattr("server.gateway.app.IdleCores", lambda: lambda: idle["here"])
    monkeypatch.setattr("server.node.door.IdleCores", lambda: lambda: idle["there"])
    workers = ScriptedPlacement(Script(first=(Stepped(level=1, reason="late"),)))
    async with host_here(workers, tmp_path) as host:
        placement = Hosts()
        placement.hosts = [host]
        async with gateway(placement) as served:
            await served.in_state("running")
            there = workers.workers[0]

            def stepped() -> bool:
                there.say(steady)
                return any(isinstance(message, StepUp) for message in there.received)

            idle["here"] = 8.0
            for _ in range(30):
                assert not stepped(), "the gateway's own cores are no use to it"
                await asyncio.sleep(0.1)
            idle["there"] = 4.0
            await until(stepped, "it may step up")


async def test_artifacts_go_to_hosts_that_lack_them(tmp_path):
    model, single = tmp_path / "mine.int8", tmp_path / "other.safetensors"
    model.mkdir()
    (model / "net.bin").write_bytes(bytes(range(256)) * 4000)
    (model / "manifest.json").write_text("{}")
    single.write_bytes(b"weights")
    wanted = job(model=str(model), ladder=[str(single), "awsrn-live-tiny-x2"])
    cache = tmp_path / "cache"
    workers = ScriptedPlacement(Script(live=False))

    async def started() -> WorkerJob:
        worker = await connect(await host.admit("demo"), wanted)
        there = workers.workers[-1]
        there.say(
            EngineLoad(state="loading", model=there.job.model, width=2, height=2, elapsed_s=0, detail="")
        )
        assert (await anext(worker.messages())).model == wanted.model, "as the operator named it"
        await worker.stop()
        return there.job

    async with host_here(workers, cache) as host:
        there = await started()
        assert there.model != wanted.model
        assert there.model.endswith("/mine.int8")
        assert there.ladder[0].endswith("/other.safetensors")
        assert there.ladder[1] == "awsrn-live-tiny-x2"
        for name in ("net.bin", "manifest.json"):
            assert (Path(there.model) / name).read_bytes() == (model / name).read_bytes()
        kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        assert await started() == there
        assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept, "sent once"

        damaged = next(path for path in cache.iterdir() if path.is_file() and path.stat().st_size > 1000)
        damaged.write_bytes(b"damaged")
        there = await started()
        assert (Path(there.model) / "net.bin").read_bytes() == (model / "net.bin").read_bytes()


async def test_what_is_published_begins_again_where_a_worker_was_too_slow(tmp_path):
    workers = ScriptedPlacement(Script(live=False))
    async with host_here(workers, tmp_path) as host:
        worker = await connect(await host.admit("demo"), job())
        there = workers.workers[0]
        take, slow = there.send, True
        there.send = lambda message: False if slow else take(message)
        for number, kind in enumerate(("rest", "rest", "start", "rest")):
            data = PublishedData(opening=1, kind=kind, data=bytes([number]), arrival_ns=time.monotonic_ns())
            worker.send(data)
            if number == 0:
                said = [await anext(messages) for messages in [worker.messages()] for _ in range(2)]
                assert [type(message).__name__ for message in said] == ["Dropped", "NeedKeyframe"]
                slow = False
        await until(lambda: len(there.received) == 3, "what follows the next start")
        assert [message.data for message in there.received[1:]] == [b"\2", b"\3"]
        await worker.stop()


async def test_a_host_that_falls_silent_is_replaced_under_the_same_viewer(tmp_path, caplog):
    placement = Hosts()
    async with host_process(tmp_path, "one") as one, host_process(tmp_path, "two") as two:
        placement.hosts = [one, two]
        async with gateway(placement, streams=(), defaults={"preset": "ultrafast", "lanes": 1}) as served:
            wanted = {"id": "demo", "source": "synthetic:?size=160x120&fps=25"}
            assert (await served.http.post("/api/streams", json=wanted)).status_code == 201
            await served.in_state("running")
            async with Viewer(served, audio=False) as viewer:
                await viewer.sees(25)
                hurt_s = time.monotonic()
                one.signal(signal.SIGSTOP)
                await until(lambda: len(placement.handles) == 2, "another host is asked")
                asked_s = time.monotonic() - hurt_s
                seen = len(viewer.frames[0])
                await viewer.sees(seen + 5)
                assert viewer.pc.connectionState == "connected"
            stream = await served.stream()
            assert (stream["worker"]["restarts"], stream["worker"]["node"]) == (1, "two")
            assert placement.handles[0].lost
            assert "the host on one: no sign of life for 0.9 s; a new one starts" in caplog.text
            print(f"another host is asked for after {asked_s:.2f} s")


def test_a_host_begins_without_what_takes_long_to_import():
    """Viewers wait for it, where a machine is lost."""
    slow = "{'server.settings', 'pydantic', 'av', 'openvino'}"
    code = f"import sys, server.node.actor; print({slow} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
