"""`/api/streams`, health and the page, of a real gateway."""

import asyncio
import json

import httpx
import pytest

from server.offline.idle_hosts import IdleHost
from server.wire.messages import (
    Dropped,
    Heartbeat,
    Reconnecting,
    Stop,
)
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement, ScriptedWorker


def quiet(*first) -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False, first=first))


async def test_a_stream_is_created_listed_shown_and_deleted():
    async with gateway(streams=()) as served:
        assert (await served.http.get("/api/streams")).json() == []
        body = {"id": "cam-1", "source": "rtsp://user:secret@camera.example:1/x?token=t", "lanes": 3}
        created = await served.http.post("/api/streams", json=body)
        assert created.status_code == 201, created.text
        assert created.headers["Location"] == "/api/streams/cam-1"
        assert served.worker.job.source == body["source"]
        assert served.worker.job.lanes == 3
        listed = (await served.http.get("/api/streams")).json()
        assert [stream["id"] for stream in listed] == ["cam-1"]
        assert "secret" not in json.dumps(listed)
        assert "token=t" not in json.dumps(listed)
        running = await served.in_state("running", "cam-1")
        assert running["output"] == {
            "width": 160,
            "height": 120,
            "encoder": "libx264",
            "bitrate_bps": 500_000,
            "on_gpu": False,
        }
        assert running["input"]["audio"] is True
        assert running["engine"]["parity_db"] == 60.5
        assert (await served.http.delete("/api/streams/cam-1")).status_code == 204
        assert (await served.http.get("/api/streams/cam-1")).status_code == 404


async def test_a_running_streams_figures():
    async with gateway() as served:

        async def full_rate() -> dict | None:
            stream = await served.stream()
            full = stream["fps"] == pytest.approx(25, rel=0.1) and stream["frames"]["total"] > 50
            return stream if full else None

        stream = await until(full_rate, "25 frames a second are measured")
        assert set(stream["stages_s"]) == {"demux", "decode", "queue", "upscale", "encode", "publish"}
        assert stream["stages_s"]["upscale"] == {"p50": 0.015, "p95": 0.015, "p99": 0.015}
        latency = stream["latency_s"]
        assert 0.02 <= latency["p50"] <= latency["p95"] <= latency["p99"] < 1
        assert stream["worker"]["rss_bytes"] == 100 << 20
        assert stream["worker"]["queues"] == {"upscale": 1}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"id": "demo", "source": "demo:"}, 409, ["'demo'"]),
        ({"id": "x", "source": "gopher://host/1"}, 422, ["source='gopher://host/1'", "'gopher'", "rtsp"]),
        ({"id": "x", "source": "rtsp://"}, 422, ["source", "host"]),
        ({"id": "x"}, 422, ["source", "required"]),
        ({"id": "../x", "source": "demo:"}, 422, ["id='../x'"]),
        ({"id": "x", "source": "/etc/passwd"}, 422, ["source='/etc/passwd'", "sources.schemes"]),
        ({"id": "x", "source": "/no/such"}, 422, ["source='/no/such'", "sources.schemes"]),
        ({"id": "x", "source": "http://169.254.169.254/"}, 422, ["169.254.169.254", "sources.hosts"]),
        ({"id": "x", "source": "rtmp://0.0.0.0/live/k?listen=1"}, 422, ["source", "sources.listen_ports"]),
        ({"id": "x", "source": "demo:", "model": "/etc/passwd"}, 422, ["model='/etc/passwd'"]),
        (
            {"id": "x", "source": "demo:", "slate": "/etc/passwd"},
            422,
            ["slate='/etc/passwd'", "the settings name"],
        ),
        ({"id": "x", "source": "a\nb"}, 422, ["control"]),
        ({"id": "x", "source": "demo:", "lanes": 99}, 422, ["lanes=99", "16"]),
        ({"id": "x", "source": "demo:", "lane": 1}, 422, ["lane", "no such key"]),
        ({"id": "x", "source": "demo:", "backend": "magic"}, 422, ["backend='magic'", "openvino"]),
        ({"id": "x", "source": "demo:", "model": "no-such"}, 422, ["model='no-such'", "awsrn-live-x2"]),
        ({"id": "full", "source": "demo:"}, 503, ["max_streams=1"]),
        ([], 422, ["body"]),
        (b"{", 422, ["JSON"]),
    ],
)
async def test_what_cannot_run_is_refused_in_words(body, status, words):
    async with gateway(quiet(), limits={"max_streams": 1}) as served:
        content = body if isinstance(body, bytes) else json.dumps(body)
        response = await served.http.post(
            "/api/streams", content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == status, response.text
        assert response.headers["Content-Type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == status
        for word in words:
            assert word in problem["detail"]
        assert len(served.placement.workers) == 1


async def test_a_source_in_an_error_is_masked():
    async with gateway(quiet(), streams=()) as served:
        response = await served.http.post("/api/streams", json={"id": "x", "source": "ftp://u:secret@h/1"})
        assert response.status_code == 422
        assert "secret" not in response.text


async def test_every_error_has_the_same_shape():
    async with gateway(quiet()) as served:
        for method, path, status in (
            ("GET", "/nowhere", 404),
            ("GET", "/api/streams/none", 404),
            ("DELETE", "/api/streams/none", 404),
            ("PUT", "/api/streams", 405),
            ("GET", "/hls/none/index.m3u8", 404),
            ("GET", "/hls/demo/seg-1.m4s", 404),
            ("PATCH", "/whep/demo/none", 404),
            ("GET", "/web/none.js", 404),
        ):
            response = await served.http.request(method, path)
            assert response.status_code == status, (method, path)
            assert set(response.json()) == {"title", "status", "detail"}, (method, path)


async def test_what_a_path_allows_is_all_that_it_has():
    async with gateway(quiet()) as served:
        for path, allowed in (
            ("/", "GET, HEAD"),
            ("/api/streams", "GET, POST"),
            ("/api/streams/none", "DELETE, GET, PATCH"),
            ("/whep/demo/none", "DELETE, PATCH"),
            ("/web/app.js", "GET, HEAD"),
        ):
            response = await served.http.put(path)
            assert response.status_code == 405, path
            assert sorted(response.headers["Allow"].split(", ")) == allowed.split(", "), path


async def test_a_list_of_many_streams_lets_others_have_their_turn():
    names = tuple(f"s{number}" for number in range(64))
    async with gateway(IdleHost(), streams=names, limits={"max_streams": 64}) as served:
        transport = httpx.ASGITransport(served.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            listing = asyncio.create_task(http.get("/api/streams"))
            turns = 0
            while not listing.done():
                await asyncio.sleep(0)
                turns += 1
        assert [stream["id"] for stream in listing.result().json()] == list(names)
        assert turns > 3


async def test_errors_are_described_as_what_they_are():
    async with gateway(quiet()) as served:
        api = (await served.http.get("/openapi.json")).json()
        for path, methods in api["paths"].items():
            for method, operation in methods.items():
                answers = operation["responses"]
                assert {"413", "421", "422", "429", "431"} <= set(answers), (method, path)
                for status, answer in answers.items():
                    if status.startswith("4"):
                        assert set(answer["content"]) == {"application/problem+json"}, (method, path, status)
        broken = await served.http.post(
            "/api/streams", content=b"\xff", headers={"Content-Type": "application/json"}
        )
        assert str(broken.status_code) in api["paths"]["/api/streams"]["post"]["responses"]


async def test_ready_once_the_configured_streams_have_started():
    async with gateway(quiet()) as served:
        assert (await served.http.get("/healthz")).json() == {"status": "ok"}
        response = await served.http.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {"ready": False, "streams": {"demo": "starting"}}
        served.worker.say(Reconnecting(reason="not there yet", retry_in_s=1))
        await served.in_state("reconnecting")
        assert (await served.http.get("/readyz")).status_code == 200
        served.worker.die()  # a worker's restart later on sends nobody away
        await served.in_state("starting")
        assert (await served.http.get("/readyz")).status_code == 200


async def test_metrics_of_a_stream_come_and_go_with_it():
    async with gateway() as served:
        await served.in_state("running")
        served.worker.say(Dropped(stage="upscale", reason="overload", count=3))
        served.worker.say(Dropped(stage="decode", reason="corrupt", count=1))
        served.worker.say(Heartbeat(queues={"upscale": 2}, rss_bytes=7, cpu_s=1.5))

        corrupt = 'livesr_frames_dropped_total{reason="corrupt",stage="decode",stream="demo"}'

        async def counted() -> dict | None:
            metrics = await served.metrics()
            return metrics if corrupt in metrics else None

        metrics = await until(counted, "the drops are counted")
        assert metrics['livesr_frames_dropped_total{reason="overload",stage="upscale",stream="demo"}'] == 3
        assert metrics['livesr_stream_state{state="running",stream="demo"}'] == 1
        assert metrics['livesr_stream_state{state="starting",stream="demo"}'] == 0
        assert (
            metrics['livesr_engine_info{backend="scripted",model="pattern",precision="int8",stream="demo"}']
            == 1
        )
        assert metrics['livesr_engine_parity_decibels{stream="demo"}'] == 60.5
        assert metrics['livesr_queue_length{stage="upscale",stream="demo"}'] == 2
        assert metrics['livesr_worker_resident_memory_bytes{stream="demo"}'] > 0
        frames = metrics['livesr_frames_total{stream="demo"}']
        assert frames > 0
        for stage in ("demux", "decode", "queue", "upscale", "encode", "publish"):
            bucket = (
                f'livesr_frame_stage_duration_seconds_bucket{{le="0.0333",stage="{stage}",stream="demo"}}'
            )
            assert metrics[bucket] > 0
        assert metrics['livesr_frame_latency_seconds_bucket{le="0.012",stream="demo"}'] == 0
        assert metrics["process_cpu_seconds_total"] > 0
        await served.http.delete("/api/streams/demo")
        text = (await served.http.get("/metrics")).text
        assert "demo" not in text


class SlowToStop(ScriptedWorker):
    """Ends once it is let go."""

    let_go: asyncio.Event

    async def stop(self, *, at_once: bool = False) -> str:
        self.received.append(Stop())
        await self.let_go.wait()
        return await super().stop(at_once=at_once)


class SlowPlacement(ScriptedPlacement):
    """Its first worker is slow to stop."""

    async def start(self, job) -> ScriptedWorker:
        if self.workers:
            return await super().start(job)
        worker = SlowToStop(self.script)
        worker.send(job)
        worker.let_go = asyncio.Event()
        self.workers.append(worker)
        return worker


async def test_an_id_is_free_again_once_its_stream_is_deleted_and_no_sooner():
    body = {"id": "demo", "source": "demo:"}
    async with gateway(SlowPlacement(Script(live=False))) as served:
        await until(lambda: served.placement.workers, "a worker")
        [old] = served.placement.workers
        deletion = asyncio.create_task(served.http.delete("/api/streams/demo"))
        await until(lambda: Stop() in old.received, "the worker is told to stop")
        early = await served.http.post("/api/streams", json=body)
        again = await served.http.delete("/api/streams/demo")
        old.let_go.set()
        assert early.status_code == 409
        assert "is being deleted" in early.json()["detail"]
        assert again.status_code == 404
        assert (await deletion).status_code == 204
        assert (await served.http.post("/api/streams", json=body)).status_code == 201
        assert 'livesr_stream_state{state="starting",stream="demo"}' in await served.metrics()


async def test_openapi_describes_it_and_no_page_asks_elsewhere():
    async with gateway(quiet()) as served:
        api = (await served.http.get("/openapi.json")).json()
        assert {"get", "post"} <= set(api["paths"]["/api/streams"])
        assert "409" in api["paths"]["/api/streams"]["post"]["responses"]
        assert "application/sdp" in api["paths"]["/whep/{stream}"]["post"]["requestBody"]["content"]
        page = await served.http.get("/")
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        script = await served.http.get("/web/app.js")
        assert script.status_code == 200
        for part in (page, script):
            assert part.headers["Cache-Control"] == "no-cache", "no mix of two versions after an upgrade"
            assert "frame-ancestors 'self'" in part.headers["Content-Security-Policy"]
        for path in ("/docs", "/redoc"):
            assert (await served.http.get(path)).status_code == 404


async def test_head_says_what_get_would_without_the_body():
    async with gateway() as served:
        await served.in_state("running")
        for path in (
            "/",
            "/web/app.js",
            "/healthz",
            "/readyz",
            "/metrics",
            "/hls/demo/index.m3u8",
            "/hls/demo/media.m3u8",
        ):
            got = await served.http.get(path, timeout=20)
            head = await served.http.head(path, timeout=20)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert head.headers["Content-Type"] == got.headers["Content-Type"], path
            assert int(head.headers["Content-Length"]) > 0, path
            for header in ("Cache-Control", "Content-Security-Policy", "ETag"):
                assert head.headers.get(header) == got.headers.get(header), (path, header)
        assert (await served.http.head("/hls/none/index.m3u8")).status_code == 404
