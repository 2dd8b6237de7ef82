"""PATCH /api/streams/ID: what changes as it runs, what takes another worker, and what is refused."""

import asyncio
from contextlib import closing
from itertools import pairwise

import httpx
import pytest

from server.gateway.streams.kept import KeptStreams
from server.wire import logs
from server.wire.messages import EngineLoad, JobImpossible, SetLogLevel, Stepped, Stop, Watch
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_recording import files, frames_of

LOADED = EngineLoad(state="ready", model="m", width=80, height=60, elapsed_s=1, detail="", matrix="bt601")
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
            before.say(LOADED)

            async def heard() -> dict | None:
                return (await served.stream("mine"))["engine_load"]

            await until(heard, "its engine is known")
            changed = await patch(served, lanes=3, preset="ultrafast")
            assert (changed["restarted"], changed["lossless"]) == (["worker"], True)
            assert served.worker.job.engine_ahead == served.worker.job.engine_of(LOADED)
            assert changed["stream"]["id"] == "mine"
            assert served.worker is not before, "it has taken over"
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


def silent_next(served: Gateway) -> None:
    served.placement.script.live = False


async def begin(served: Gateway, workers: int, **changes) -> asyncio.Task[httpx.Response]:
    """To a worker that says nothing."""
    silent_next(served)
    changing = asyncio.create_task(served.http.patch("/api/streams/mine", json=changes, timeout=60))
    await until(lambda: len(served.placement.workers) == workers, "another worker")
    return changing


async def test_another_size_takes_over_at_a_key_frame_with_no_frame_lost(tmp_path):
    """HLS players get another init segment after a discontinuity, the recording another file."""
    placement = ScriptedPlacement(Script(gop_s=1.0))
    recording = {"folder": str(tmp_path), "free_bytes": 0}
    async with gateway(placement, streams=(), recording=recording, hls={"segment_s": 1.0}) as served:
        await made(served, record=True)
        async with Viewer(served, "mine") as viewer:
            await viewer.sees(FPS)
            playlist = await until(lambda: listed(served), "a segment")
            assert playlist.count("#EXT-X-MAP") == 1
            placement.script.width, placement.script.height = 320, 240
            assert (await patch(served, model="awsrn-live-large-x4"))["lossless"]
            await until(lambda: viewer.frames[0][-1].width == 320, "the new size")
            assert not placement.workers[0].ended_at_once

            async def both() -> str:
                text = await listed(served)
                return text if text.count("#EXT-X-MAP") == 2 else ""

            playlist = await until(both, "the new init segment is listed")
            assert playlist.count("#EXT-X-DISCONTINUITY\n") == 1
            first, second = await files(served, 2, 20_000)
        starts_of = {file["name"]: file["starts"] for file in (first, second)}
        times = [frames_of(tmp_path / "mine" / name)[0] for name in sorted(starts_of, key=starts_of.get)]
        steps = [later - sooner for file in times for sooner, later in pairwise(file)]
        assert steps == pytest.approx([1 / FPS] * len(steps), abs=0.02)
        stream = await served.stream("mine")
        assert (stream["output"]["width"], stream["worker"]["restarts"]) == (320, 0)


async def listed(served: Gateway) -> str:
    await served.http.get("/hls/mine/index.m3u8", timeout=30)
    return (await served.http.get("/hls/mine/media.m3u8")).text


async def test_a_worker_that_cannot_take_over_changes_nothing(tmp_path):
    path = tmp_path / "streams.db"
    async with gateway(streams=(), kept=KeptStreams(path)) as served:
        await made(served)
        silent_next(served)
        loading = EngineLoad(state="failed", model="m", width=2, height=2, elapsed_s=1, detail="no such GPU")
        for first, word in (
            ((JobImpossible(reason="rtsp://u:secret@x holds none"),), "can't: rtsp://***@x holds none"),
            ((loading,), "can't: no such GPU"),
        ):
            served.placement.script.first = first
            changing = {"lanes": 3, "record": False, "priority": 4}
            answer = await served.http.patch("/api/streams/mine", json=changing)
            assert answer.status_code == 409
            assert f"stream 'mine' goes on as it was: the next worker {word}" in answer.json()["detail"]
            assert "?beside=false ends the present worker first" in answer.json()["detail"]
            await until(lambda: isinstance(served.worker.received[-1], Stop), "the next one is gone")
        served.placement.script.refuse = "every GPU is full"
        answer = await served.http.patch("/api/streams/mine", json={"lanes": 3})
        assert (answer.status_code, "started: every GPU is full" in answer.json()["detail"]) == (409, True)
        frames = (await served.stream("mine"))["frames"]["total"]

        async def more() -> bool:
            stream = await served.stream("mine")
            return stream["frames"]["total"] > frames and stream["state"] == "running"

        await until(more, "the present worker goes on")
        served.placement.script = Script()
        await patch(served, preset="ultrafast")
        assert (served.worker.job.lanes, served.worker.job.preset) == (0, "ultrafast")
    with closing(KeptStreams(path)) as kept:
        assert kept.at_start[0].given == BODY | {"preset": "ultrafast"}


async def test_a_later_change_takes_in_one_that_is_on_its_way(tmp_path):
    """Both are answered by what the later one comes to."""
    path = tmp_path / "streams.db"
    async with gateway(streams=(), kept=KeptStreams(path)) as served:
        await made(served)
        first = await begin(served, 2, lanes=3)
        second = await begin(served, 3, priority=4, latency_budget_s=0.3)
        served.placement.script.live = True
        assert (await patch(served, preset="ultrafast"))["lossless"]
        assert (served.worker.job.lanes, served.worker.job.preset) == (3, "ultrafast")
        for answer in (await first, await second):
            assert (answer.status_code, answer.json()["lossless"]) == (200, True)
        assert len(served.placement.workers) == 4
        third = await begin(served, 5, lanes=4)
        assert (await patch(served, lanes=3))["restarted"] == [], "as it is"
        assert (await third).json()["restarted"] == []

        fourth = await begin(served, 6, lanes=5)
        served.placement.script.refuse = "every GPU is full"
        for answer in (await served.http.patch("/api/streams/mine", json={"lanes": 6}), await fourth):
            assert (answer.status_code, "every GPU is full" in answer.json()["detail"]) == (409, True)
        served.placement.script.refuse = ""
        fifth = await begin(served, 7, lanes=7)
        served.placement.script.live = True
        answer = await served.http.patch("/api/streams/mine?beside=false", json={"preset": "veryfast"})
        assert (answer.json()["lossless"], (await fifth).json()["lossless"]) == (False, False)
        await until(lambda: len(served.placement.workers) == 8, "another worker")
        assert (served.worker.job.lanes, served.worker.job.preset) == (7, "veryfast")
    given = {"priority": 4, "latency_budget_s": 0.3, "lanes": 7, "preset": "veryfast"}
    with closing(KeptStreams(path)) as kept:
        assert kept.at_start[0].given == BODY | given


async def test_a_stream_that_is_deleted_meanwhile_does_not_go_on_as_it_was():
    async with gateway(streams=()) as served:
        await made(served)
        changing = await begin(served, 2, lanes=5)
        assert (await served.http.delete("/api/streams/mine")).status_code == 204
        assert (await changing).status_code == 404
        assert (await served.stream("mine"))["status"] == 404


async def test_what_has_taken_over_is_no_failure_whatever_comes_at_once(monkeypatch):
    monkeypatch.setattr("server.gateway.streams.supervisor._TICK_S", 0.2)  # between two looks at it
    async with gateway(streams=()) as served:
        await made(served)
        first = asyncio.create_task(served.http.patch("/api/streams/mine", json={"lanes": 3}, timeout=60))
        await until(lambda: isinstance(served.placement.workers[0].received[-1], Stop), "it has taken over")
        await patch(served, priority=5)
        assert ((await first).status_code, served.worker.job.lanes) == (200, 3)


async def test_the_next_worker_logs_as_the_present_one_was_told(monkeypatch):
    monkeypatch.setattr(logs, "_changed", None)
    async with gateway(streams=()) as served:
        await made(served)
        await served.http.put("/api/log-level", json={"level": "warning"})
        changing = await begin(served, 2, lanes=3)
        assert SetLogLevel(level="warning") in served.worker.received
        await served.http.put("/api/log-level", json={"level": "info"})
        assert SetLogLevel(level="info") in served.worker.received
        await served.http.delete("/api/streams/mine")
        await changing


async def test_what_is_not_to_wait_starts_anew():
    async with gateway(streams=()) as served:
        await made(served)
        for query, changes in (("?beside=false", {"lanes": 3}), ("", {"source": "synthetic:?fps=12"})):
            before = served.worker
            answer = await served.http.patch(f"/api/streams/mine{query}", json=changes)
            assert answer.json()["lossless"] is False
            await until(lambda one=before: isinstance(one.received[-1], Stop), "the present one ends")
            await until(lambda one=before: served.worker is not one, "another worker")
            assert served.worker.job.engine_ahead is None, "nobody knows its pictures"
            await served.in_state("running", "mine")
            served.worker.say(LOADED)


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
