"""PATCH /api/streams/ID: what changes as it runs, what takes another worker, and what is refused."""

import asyncio
from contextlib import closing

import pytest

from server.gateway.streams.kept import KeptStreams
from server.wire.messages import JobImpossible, Stepped, Watch
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401

BODY = {"id": "mine", "source": "synthetic:", "upscale_when": "always"}


async def made(served: Gateway, **fields) -> None:
    answer = await served.http.post("/api/streams", json=BODY | fields)
    assert answer.status_code == 201, answer.text
    await served.in_state("running", "mine")


async def patch(served: Gateway, stream: str = "mine", **changes) -> dict:
    answer = await served.http.patch(f"/api/streams/{stream}", json=changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_worker_with_another_job_takes_over_under_the_same_viewer():
    async with gateway(streams=()) as served:
        await made(served)
        async with Viewer(served, "mine") as viewer:
            await viewer.sees(5)
            before = served.worker
            changed = await patch(served, lanes=3, preset="ultrafast")
            assert changed["restarted"] == ["worker"]
            assert changed["stream"]["id"] == "mine"
            await until(lambda: served.worker is not before, "another worker")
            assert (served.worker.job.lanes, served.worker.job.preset) == (3, "ultrafast")
            assert served.worker.job.video_after is not None, "timestamps go on"
            assert not before.ended_at_once
            frames = await viewer.sees(len(viewer.frames[0]) + 20)
            times = [frame.pts for frame in frames]
            assert times == sorted(set(times))
            stream = await served.in_state("running", "mine")
            assert stream["viewers"]["whep"] == 1
            assert stream["worker"]["restarts"] == 0, "it was no fault"
        assert len(served.placement.workers) == 2


async def test_what_the_worker_is_not_told_changes_as_it_runs():
    async with gateway(streams=()) as served:
        await made(served)
        assert (await patch(served, priority=5))["restarted"] == []
        changed = await patch(served, upscale_when="watched")
        assert changed["restarted"] == []
        await served.in_state("idle", "mine")
        assert served.worker.received[-1] == Watch(renditions=())
        assert (await patch(served, upscale_when="always", lanes=0))["restarted"] == []
        await served.in_state("running", "mine")
        assert len(served.placement.workers) == 1


async def test_another_ladder_starts_at_its_top():
    async with gateway(streams=()) as served:
        await made(served)
        served.worker.say(Stepped(level=1, reason="late"))

        async def at(level: int) -> bool:
            return (await served.stream("mine"))["level"] == level

        await until(lambda: at(1), "the level")
        await patch(served, lanes=1)
        await until(lambda: len(served.placement.workers) == 2, "another worker")
        assert served.worker.job.level == 1
        changed = await patch(served, ladder=["bicubic"])
        assert changed["stream"]["level"] == 0
        await until(lambda: len(served.placement.workers) == 3, "another worker")
        assert served.worker.job.level == 0


async def test_a_stream_that_has_failed_starts_anew():
    async with gateway(streams=()) as served:
        await made(served)
        created = (await served.stream("mine"))["created"]
        served.worker.hang()
        served.worker.say(JobImpossible(reason="no video in it"))
        await served.in_state("failed", "mine")
        assert (await patch(served, loop=False))["restarted"] == ["worker"]
        assert (await served.in_state("running", "mine"))["created"] == created
        async with Viewer(served, "mine") as viewer:
            await viewer.sees(3)


async def test_a_worker_that_is_waited_for_comes_at_once():
    async with gateway(streams=()) as served:
        served.placement.script.refuse = "no GPU"
        answer = await served.http.post("/api/streams", json=BODY)
        assert answer.status_code == 201

        async def patient() -> bool:
            reason = (await served.stream("mine"))["reason"]
            return "no GPU; trying again in" in reason and float(reason.split()[-2]) >= 8.0

        await until(patient, "it waits for long")
        served.placement.script.refuse = ""
        await patch(served, lanes=1)
        async with asyncio.timeout(5):  # of the eight that it would have waited
            await served.in_state("running", "mine")


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"source": "file:///etc/passwd"}, 422, "file"),
        ({"source": "rtsp://127.0.0.1/x"}, 422, "rtsp://127.0.0.1/x"),
        ({"source": "gopher://x/"}, 422, "'gopher' must be one of"),
        ({"model": "/tmp/model.safetensors"}, 422, "model='/tmp/model.safetensors'"),
        ({"lanes": 99}, 422, "lanes=99"),
        ({"id": "other"}, 422, "id"),
        ({"upscale_when": None}, 422, "upscale_when"),
        ([], 422, "body"),
    ],
)
async def test_what_post_refuses_is_refused_and_nothing_changes(changes, status, word):
    async with gateway(streams=()) as served:
        await made(served)
        before = await served.stream("mine")
        answer = await served.http.patch("/api/streams/mine", json=changes)
        assert answer.status_code == status, answer.text
        assert word in answer.json()["detail"]
        assert (await served.stream("mine"))["source"] == before["source"]
        assert len(served.placement.workers) == 1


async def test_streams_of_the_settings_and_none_are_refused():
    async with gateway() as served:
        answer = await served.http.patch("/api/streams/demo", json={"lanes": 1})
        assert (answer.status_code, answer.json()["detail"]) == (
            409,
            "stream 'demo' is in the settings file: change it there",
        )
        assert (await served.http.patch("/api/streams/none", json={})).status_code == 404


async def test_changes_are_kept(tmp_path):
    path = tmp_path / "streams.db"
    async with gateway(streams=(), kept=KeptStreams(path), defaults={"lanes": 2}) as served:
        await made(served)
        await patch(served, priority=7, source="synthetic:?fps=12")
        created = (await served.stream("mine"))["created"]
    with closing(KeptStreams(path)) as kept:
        (stream,) = kept.at_start
    assert stream.given == BODY | {"priority": 7, "source": "synthetic:?fps=12"}, "no default among it"
    async with gateway(streams=(), kept=KeptStreams(path), defaults={"lanes": 4}) as served:
        assert (await served.in_state("running", "mine"))["created"] == created
        assert (served.worker.job.source, served.worker.job.lanes) == ("synthetic:?fps=12", 4)
