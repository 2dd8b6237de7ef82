"""Streams that share a worker process: placed together, and apart again where that goes wrong."""

import logging
import os
import resource
import signal
from pathlib import Path

import pytest

from server.gateway.placement import process
from server.gateway.placement.suspects import FORGOTTEN_AFTER_S, Suspects
from tests.logs import events
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.test_local import FAST, SMALL, Recording, alive


async def start(served, *names: str, **options) -> None:
    for name in names:
        answer = await served.http.post("/api/streams", json=SMALL | {"id": name} | options)
        assert answer.status_code == 201, answer.text
    for name in names:
        await served.in_state("running", name)


async def pid_of(served, name: str) -> int:
    async def told() -> int | None:
        return (await served.stream(name))["worker"]["pid"]

    return await until(told, f"{name} has told its process")


async def back(served, name: str, restarts: int) -> None:
    async def again() -> bool:
        stream = await served.stream(name)
        return stream["worker"]["restarts"] == restarts and stream["state"] == "running"

    await until(again, f"{name} runs again")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def sharing(placement: Recording):
    return gateway(placement, streams=(), defaults=FAST)


async def test_streams_fill_a_process_before_another_starts_and_it_ends_with_its_last():
    placement = Recording(streams_per_worker=2)
    async with sharing(placement) as served:
        await start(served, "a", "b", "c")
        pids = [await pid_of(served, name) for name in "abc"]
        assert pids[0] == pids[1] != pids[2]
        parts = [(await served.stream(name))["worker"]["rss_bytes"] for name in "ab"]
        assert sum(parts) == pytest.approx(resident_bytes(pids[0]), rel=0.3), "counted once"
        await served.http.delete("/api/streams/a")
        frames = (await served.stream("b"))["frames"]["total"]

        async def goes_on() -> bool:
            return (await served.stream("b"))["frames"]["total"] > frames + 10

        await until(goes_on, "the other one goes on")
        await start(served, "d")
        assert await pid_of(served, "d") == pids[0], "there is room again"
        await served.http.delete("/api/streams/b")
        await served.http.delete("/api/streams/d")
        await until(lambda: not alive(pids[0]), "the process ends with its last stream")
        assert await pid_of(served, "c") == pids[2]


async def test_streams_of_two_processes_that_died_are_kept_apart_and_this_can_be_seen(caplog):
    caplog.set_level(logging.INFO)
    placement = Recording(streams_per_worker=2, standby=1)
    async with sharing(placement) as served:
        await start(served, "a", "b")
        for deaths in (1, 2):
            (pid,) = {await pid_of(served, name) for name in "ab"}
            await until(lambda: placement._standbys._waiting, "a standby waits")
            os.kill(pid, signal.SIGKILL)
            for name in "ab":
                await back(served, name, deaths)
            assert events(caplog, "standby takes over")
            shared = len({await pid_of(served, name) for name in "ab"}) == 1
            assert shared == (deaths == 1)
        for name in "ab":
            assert (await served.stream(name))["worker"]["isolated"]
            assert name in [event["stream"] for event in events(caplog, "stream isolated")]
            assert (await served.metrics())[f'livesr_worker_isolated{{stream="{name}"}}'] == 1
        before = await pid_of(served, "b")
        os.kill(await pid_of(served, "a"), signal.SIGKILL)
        assert (await served.in_state("quarantined", "a"))["worker"]["restarts"] == 2
        stream = await served.stream("b")
        assert (stream["state"], stream["worker"]["restarts"], await pid_of(served, "b")) == (
            "running",
            2,
            before,
        )
        await start(served, "c")
        assert await pid_of(served, "c") != before, "nobody joins one that is kept apart"


async def test_a_stream_whose_thread_never_ends_costs_the_others_one_restart(monkeypatch, caplog):
    """One that is deleted, but whose end the gateway never hears of."""
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.2)
    monkeypatch.setattr(process, "LINGER_S", 0.5)
    placement = Recording(streams_per_worker=2)
    async with gateway(placement, streams=(), defaults=FAST | {"source_timeout_s": 1.0}) as served:
        await start(served, "a", "b")
        (pid,) = {await pid_of(served, name) for name in "ab"}
        worker = next(worker for worker in placement.workers if worker.stream == "a")
        on_end = worker.on_end
        monkeypatch.setattr(worker, "on_end", lambda: None)
        await served.http.delete("/api/streams/a")
        assert [event["stream"] for event in events(caplog, "worker lingers")] == ["a"]
        await start(served, "c")
        assert await pid_of(served, "c") != pid, "nobody joins a process with a thread that goes on"
        await until(lambda: not alive(pid), "the process is ended")
        await back(served, "b", 1)
        assert not (await served.stream("b"))["worker"]["isolated"]
        assert not placement._suspects.isolated("b")
        on_end()  # closes what another test would find open


def test_who_was_in_two_deaths_is_suspected_until_the_cause_is_found_or_time_has_passed():
    now_s = [0.0]
    suspects = Suspects(lambda: now_s[0])
    suspects.trouble(["a", "b", "c"], isolated=False)
    assert not suspects.isolated("a")
    suspects.trouble(["a", "b"], isolated=False)
    assert [name for name in "abcd" if suspects.isolated(name)] == ["a", "b"]
    suspects.trouble(["a"], isolated=True)
    assert [name for name in "abc" if suspects.isolated(name)] == ["a"], "it dies alone, too"
    now_s[0] = FORGOTTEN_AFTER_S + 1
    assert not suspects.isolated("a")
