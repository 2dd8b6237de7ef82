"""What is logged by a gateway: how much, changed while it runs, and its requests where they are wanted."""

import logging

from server.wire import logs
from server.wire.messages import SetLogLevel
from tests.logs import events
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.test_reload import reload, stream


async def test_the_level_changes_here_and_in_every_worker(caplog, monkeypatch):
    monkeypatch.setattr(logs, "_changed", None)
    caplog.set_level(logging.INFO)  # restored at the end, whatever we do to it
    async with gateway() as served:
        await served.in_state("running")
        assert (await served.http.get("/api/log-level")).json() == {"level": "info"}
        answer = await served.http.put("/api/log-level", json={"level": "debug"})
        assert (answer.status_code, answer.json()) == (200, {"level": "debug"})
        assert logs.level() == "debug"
        assert SetLogLevel(level="debug") in served.worker.received

        before = served.worker
        before.die()
        await until(lambda: served.worker is not before, "the next worker")
        await until(lambda: SetLogLevel(level="debug") in served.worker.received, "it is told, too")

        wrong = await served.http.put("/api/log-level", json={"level": "loud"})
        assert wrong.status_code == 422
        assert "'warning'" in wrong.text

        await reload(served, stream("demo"))
        assert logs.level() == "debug", "the settings say nothing else than they did"
        await reload(served, stream("demo"), log={"level": "warning", "access": True})
        await until(lambda: SetLogLevel(level="warning") in served.worker.received, "the worker is told")
        [said] = events(caplog, "settings need a restart")
        assert said["keys"] == ["log.access"]


async def test_requests_are_logged_without_what_lets_somebody_in(caplog):
    caplog.set_level(logging.INFO)
    async with gateway(log={"access": True}) as served:
        for path in (
            "/healthz?token=s3cret",
            "/hls/demo/s3cret/index.m3u8",
            "/hls/demo/index.m3u8",
            "/whep/demo/s3cret",
            "/api/streams/demo/viewers/s3cret",
        ):
            await served.http.get(path)
    said = events(caplog, "request")
    assert [request["path"] for request in said] == [
        "/healthz",
        "/hls/demo/***/index.m3u8",
        "/hls/demo/index.m3u8",
        "/whep/demo/***",
        "/api/streams/demo/viewers/***",
    ]
    assert (said[0]["method"], said[0]["status"], said[0]["client"]) == ("GET", 200, "127.0.0.1")
    assert repr(said[1]["status"]) == "403", "as text shows it"
