"""Settings read again by a running gateway: what changes, for whom, and what stays."""

import pytest

from server.settings import Settings
from tests.logs import events
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.test_auth import bearer, tokens

FILE = {"webrtc": {"host_addresses": ["127.0.0.1"]}}


def stream(name: str, **fields) -> dict:
    return {"id": name, "source": "synthetic:", **fields}


async def reload(served: Gateway, *streams: dict, **tables) -> None:
    """`tables` are those of the file, as `gateway` has them by itself."""
    tables["defaults"] = {"upscale_when": "always"} | tables.get("defaults", {})
    await served.app.reload(Settings.model_validate({**FILE, "streams": streams, **tables}))


async def names(served: Gateway) -> list[str]:
    return sorted(stream["id"] for stream in (await served.http.get("/api/streams")).json())


async def test_streams_come_go_and_change_and_the_others_notice_nothing():
    async with gateway(streams=("same", "changed", "gone")) as served:
        for name in ("same", "changed", "gone"):
            await served.in_state("running", name)
        started = (await served.stream("same"))["started"]
        async with Viewer(served, "same") as same, Viewer(served, "changed") as changed:
            await same.sees(5)
            await changed.sees(5)
            await reload(served, stream("same"), stream("changed", lanes=3), stream("new"))
            assert await names(served) == ["changed", "new", "same"]
            await same.sees(len(same.frames[0]) + 20)
            await changed.sees(len(changed.frames[0]) + 20)
            await served.in_state("running", "new")
            assert (await served.stream("same"))["started"] == started
            jobs = [worker.job for worker in served.placement.workers]
            assert sorted(job.stream for job in jobs) == ["changed", "changed", "gone", "new", "same"]
            assert [job.lanes for job in jobs if job.stream == "changed"] == [0, 3]


async def test_defaults_count_for_streams_of_the_file_and_of_the_api():
    async with gateway() as served:
        await served.http.post("/api/streams", json=stream("theirs"))
        await served.http.post("/api/streams", json=stream("fixed", lanes=1))
        for name in ("demo", "theirs", "fixed"):
            await served.in_state("running", name)
        await reload(served, stream("demo"), defaults={"lanes": 2})
        await until(lambda: len(served.placement.workers) == 5, "two new workers")
        assert {w.job.stream: w.job.lanes for w in served.placement.workers[3:]} == {"demo": 2, "theirs": 2}


async def test_a_stream_that_sources_no_longer_allow_ends_and_may_come_back(caplog: pytest.LogCaptureFixture):
    async with gateway() as served:
        await served.http.post("/api/streams", json=stream("theirs"))
        await served.in_state("running", "theirs")
        await reload(served, stream("demo"), sources={"schemes": ["rtsp"]})
        assert await names(served) == ["demo"]
        [refused] = events(caplog, "stream not allowed")
        assert refused["stream"] == "theirs"
        assert refused["reason"].startswith("source='synthetic:'")
        assert (await served.http.post("/api/streams", json=stream("late"))).status_code == 422
        await reload(served, stream("demo"))
        assert await names(served) == ["demo", "theirs"]
        assert served.worker.job.policy is not None
        assert len([w for w in served.placement.workers if w.job.stream == "demo"]) == 1


async def test_a_name_that_the_api_has_taken_is_said(caplog: pytest.LogCaptureFixture):
    async with gateway() as served:
        await served.http.post("/api/streams", json=stream("taken", lanes=1))
        await reload(served, stream("demo"), stream("taken", lanes=5))
        assert [event["stream"] for event in events(caplog, "stream not as in the settings")] == ["taken"]
        assert [w.job.lanes for w in served.placement.workers if w.job.stream == "taken"] == [1]
        await reload(served, stream("demo"))
        assert await names(served) == ["demo", "taken"], "it is not the file's to end"


async def test_tokens_come_and_go():
    async with gateway(**tokens(old=["admin"])) as served:
        await reload(served, stream("demo"), **tokens(new=["admin"]))
        assert (await served.http.get("/api/streams", headers=bearer("old"))).status_code == 401
        assert (await served.http.get("/api/streams", headers=bearer("new"))).status_code == 200
        playlist = await served.http.get("/hls/demo/media.m3u8", headers=bearer("new"), timeout=30)
        assert playlist.headers["Cache-Control"] == "private, no-cache"
        await reload(served, stream("demo"))
        assert (await served.http.get("/api/streams")).status_code == 200
        playlist = await served.http.get("/hls/demo/media.m3u8")
        assert playlist.headers["Cache-Control"] == "no-cache"


async def test_keys_that_cannot_be_read_change_nothing(tmp_path):
    async with gateway(**tokens(old=["admin"])) as served:
        auth = {"jwt": {"jwks_file": str(tmp_path / "none.json")}}
        with pytest.raises(ValueError, match=r"none\.json"):
            await reload(served, stream("demo"), stream("new"), auth=auth)
        answer = await served.http.get("/api/streams", headers=bearer("old"))
        assert [stream["id"] for stream in answer.json()] == ["demo"]


async def test_limits_and_what_needs_a_restart(caplog: pytest.LogCaptureFixture):
    async with gateway() as served:
        await served.in_state("running")
        limits = {"max_streams": 1, "max_viewers_per_stream": 1, "max_body_bytes": 5000}
        tables = {"server": {"port": 9, "hosts": ["x.example"]}, "hls": {"segment_s": 4.0}}
        await reload(served, stream("demo"), limits=limits, **tables)
        refused = await served.http.post("/api/streams", json=stream("more"))
        assert (refused.status_code, "limits.max_streams=1" in refused.text) == (503, True)
        async with Viewer(served) as viewer:
            await viewer.sees(3)
            full = await served.http.post(
                "/whep/demo",
                content=viewer.pc.localDescription.sdp,
                headers={"Content-Type": "application/sdp"},
            )
            assert "limits.max_viewers_per_stream=1" in full.text
        [said] = events(caplog, "settings need a restart")
        assert said["keys"] == ["server.port", "server.hosts", "hls.segment_s", "limits.max_body_bytes"]
        assert len(served.placement.workers) == 1
        await reload(served, stream("demo"), limits={"max_width": 640})
        await until(lambda: len(served.placement.workers) == 2, "a worker with that limit")
        assert served.worker.job.max_width == 640
