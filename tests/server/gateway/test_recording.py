"""Streams recorded: files that play whatever happens, kept as long as told, on a disk that isn't filled."""

import asyncio
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import av
import httpx
import pytest

from server.gateway.record.archive import Archive
from server.gateway.record.recorder import Recorder
from server.settings import Recording, Settings
from tests.server.gateway.hls_media import video
from tests.server.gateway.recorded_media import write
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import FPS, FRAME_TICKS, Encoder, opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens


def recorded(folder: Path, **recording) -> dict:
    """Settings of a service that records its stream."""
    return {
        "recording": {"folder": str(folder), "free_bytes": 0, **recording},
        "defaults": {"record": True, "upscale_when": "watched"},
        "hls": {"segment_s": 1.0},
    }


def short() -> ScriptedPlacement:
    return ScriptedPlacement(Script(gop_s=1.0))


async def files(served: Gateway, count: int, least_bytes: int = 0) -> list[dict]:
    async def there() -> list[dict]:
        found = (await served.http.get("/api/recordings")).json()
        return found if len(found) >= count and found[-1]["bytes"] > least_bytes else []

    return await until(there, f"{count} recordings", 30)


def frames_of(path: Path) -> tuple[list[float], list[str]]:
    with av.open(str(path)) as container:
        kinds = sorted(stream.type for stream in container.streams)
        return [frame.time for frame in container.decode(video=0)], kinds


async def test_a_stream_is_recorded_with_nobody_there_and_its_file_plays_while_it_grows(tmp_path):
    async with gateway(short(), **recorded(tmp_path)) as served:
        stream = await served.in_state("running")
        assert stream["recording"] | {"since": None} == {"on": True, "since": None, "reason": ""}
        assert datetime.fromisoformat(stream["recording"]["since"]) <= datetime.now(UTC)
        assert stream["viewers"] == {"whep": 0, "hls": 0}
        (file,) = await files(served, 1, 20_000)
        assert (file["stream"], file["growing"]) == ("demo", True)
        times, kinds = frames_of(tmp_path / "demo" / file["name"])
        assert len(times) >= FPS
        assert kinds == ["audio", "video"]
        steps = [later - sooner for sooner, later in pairwise(times)]
        assert steps == pytest.approx([1 / FPS] * len(steps), abs=0.001)
        starts, ends = (datetime.fromisoformat(file[key]) for key in ("starts", "ends"))
        assert abs((datetime.now(UTC) - starts).total_seconds()) < 30
        assert (ends - starts).total_seconds() >= 1
        assert (await served.metrics())['livesr_recording{stream="demo"}'] == 1
        (answer,) = [await served.http.delete(file["url"])]
        assert (answer.status_code, "is being written" in answer.text) == (409, True)

        await served.http.get("/hls/demo/index.m3u8", timeout=30)
        playlist = (await served.http.get("/hls/demo/media.m3u8")).text
        names = [line for line in playlist.splitlines() if line.startswith("seg-")]
        assert names[0].endswith("-1.m4s"), "who records needs no HLS: its first segment is a player's"

        whole = await served.http.get(file["url"])
        assert whole.headers["Content-Type"] == "video/mp4"
        part = await served.http.get(file["url"], headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        head = await served.http.head(file["url"], headers={"Range": "bytes=4-7"})
        assert (head.status_code, head.headers["Accept-Ranges"], head.content) == (200, "bytes", b"")
        assert int(head.headers["Content-Length"]) >= len(whole.content)


async def test_another_file_begins_after_its_time_and_where_the_timeline_breaks(tmp_path):
    async with gateway(short(), **recorded(tmp_path, file_s=2.0)) as served:
        await served.in_state("running")
        await files(served, 2)
        served.worker.die()
        restarted = datetime.now(UTC)

        async def after() -> bool:
            found = await files(served, 3)
            return datetime.fromisoformat(found[-1]["starts"]) > restarted

        await until(after, "a file of the next worker", 30)
        before = [file for file in await files(served, 3) if not file["growing"]]
        for file in before:
            times, _ = frames_of(tmp_path / "demo" / file["name"])
            assert times
            assert times[-1] - times[0] < 4
    for path in (tmp_path / "demo").iterdir():
        assert frames_of(path)[0], "what had begun is whole after the end, too"


async def test_another_file_begins_after_its_size_at_a_key_frame(tmp_path):
    placement = ScriptedPlacement(Script(gop_s=0.4, numbered=True, audio=False))
    async with gateway(placement, **recorded(tmp_path, file_bytes=10_000)) as served:
        await files(served, 3)
    paths = sorted((tmp_path / "demo").iterdir())
    for path in paths[:-1]:
        assert 5_000 < path.stat().st_size <= 10_000
    runs = [frames_of(path)[0] for path in paths]
    for before, after in pairwise(runs):
        assert after[0] - before[-1] == pytest.approx(1 / FPS, abs=0.001), "none is missing between them"


async def test_a_full_disk_stops_recording_visibly_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("server.gateway.record.recorder._AGAIN_S", 0.2)
    usage = shutil.disk_usage(tmp_path)
    free = [usage.free]
    monkeypatch.setattr(
        "server.gateway.record.archive.shutil.disk_usage", lambda _: usage._replace(free=free[0])
    )
    async with gateway(short(), **recorded(tmp_path, free_bytes=1 << 20)) as served:
        await files(served, 1, 10_000)
        free[0] = 1 << 10

        async def stopped() -> bool:
            return (await served.stream())["recording"]["on"] is False

        await until(stopped, "the recording has stopped", 20)
        stream = await served.stream()
        assert "below recording.free_bytes=1048576 (1 MB)" in stream["recording"]["reason"]
        assert stream["state"] == "running"
        metrics = await served.metrics()
        assert metrics['livesr_recording{stream="demo"}'] == 0
        free_bytes, floor_bytes = (
            metrics[f"livesr_recording_disk_{name}_bytes"] for name in ("free", "floor")
        )
        assert (free_bytes < floor_bytes, floor_bytes) == (True, 1 << 20)
        free[0] = usage.free
        await files(served, 2)
        assert (await served.stream())["recording"]["on"] is True


async def test_a_write_that_fails_ends_the_file_and_not_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr("server.gateway.record.recorder._AGAIN_S", 0.0)
    archive, told = Archive(Recording(folder=str(tmp_path), free_bytes=0)), []
    begin, full = archive.begin, iter((True, True))

    def begin_full(stream: str, starts: datetime) -> Path:
        path = begin(stream, starts)
        if next(full, False):
            path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(archive, "begin", begin_full)
    recorder = Recorder("demo", archive, on_trouble=told.append)
    encoder = Encoder(160, 120, 0.2)
    recorder.opened(opened())
    for number in range(2 * FPS):
        pts = 90_000 * 1000 + number * FRAME_TICKS
        recorder.video(video(pts, *encoder.encode(number, pts)))
        await until(lambda: recorder._queue.empty(), "it is taken")
    await until(lambda: told == ["No space left on device", ""], "it records again")
    recorder.close()
    await asyncio.to_thread(recorder.join, 10)
    (file,) = archive.files()
    assert not archive.is_growing(file)
    assert len(frames_of(tmp_path / "demo" / file.name)[0]) > FPS


async def test_a_slow_disk_loses_what_comes_meanwhile_and_goes_on_at_a_key_frame(tmp_path, monkeypatch):
    monkeypatch.setattr("server.gateway.record.recorder._QUEUED", 8)
    archive, turns, told = Archive(Recording(folder=str(tmp_path))), threading.Event(), []
    hangs = threading.Event()

    def hang() -> str:
        hangs.set()
        turns.wait()
        return ""

    monkeypatch.setattr(archive, "lack_of_room", hang)
    recorder = Recorder("demo", archive, on_trouble=told.append)
    encoder = Encoder(160, 120, 1.0)
    pictures = []
    for number in range(3 * FPS):
        pts = 90_000 * 1000 + number * FRAME_TICKS
        pictures.append(video(pts, *encoder.encode(number, pts)))
    recorder.opened(opened())
    for packet in pictures[: FPS + 2]:  # the disk hangs on the first second
        recorder.video(packet)
        await until(lambda: recorder._queue.empty() or hangs.is_set(), "it is taken")
    for packet in pictures[FPS + 2 : 2 * FPS - 2]:
        recorder.video(packet)
    assert told == ["the disk is too slow"]
    turns.set()
    await until(lambda: recorder._queue.empty(), "the disk has caught up")
    for packet in pictures[2 * FPS - 2 :]:
        recorder.video(packet)
        await until(lambda: recorder._queue.empty(), "it is taken")
    await until(lambda: told == ["the disk is too slow", ""], "it records again")
    recorder.close()
    await asyncio.to_thread(recorder.join, 10)
    one, other = (frames_of(tmp_path / "demo" / file.name)[0] for file in archive.files())
    assert len(one) >= FPS
    assert len(other) == FPS


async def test_what_is_old_or_too_much_is_deleted_the_oldest_first(tmp_path):
    archive = Archive(Recording(folder=str(tmp_path), keep_s=3600, keep_bytes=2500))
    now = datetime.now(UTC)
    paths = []
    for hours in (3.0, 0.5, 0.4, 0.3):
        path = archive.begin("demo", now - timedelta(hours=hours))
        path.write_bytes(bytes(1000))
        ended = (now - timedelta(hours=hours - 0.1)).timestamp()
        os.utime(path, (ended, ended))
        if hours != 0.5:
            archive.finish(path)
        paths.append(path)
    (tmp_path / "demo" / "notes.txt").write_text("not ours")
    archive.make_room()
    assert [path.exists() for path in paths] == [False, True, False, True], "what grows stays"
    assert (tmp_path / "demo" / "notes.txt").exists()


async def test_what_is_too_much_is_deleted_however_long_files_may_stay(tmp_path):
    archive = Archive(Recording(folder=str(tmp_path), keep_s=1e300, keep_bytes=1))
    path = archive.begin("demo", datetime.now(UTC) - timedelta(hours=1))
    path.write_bytes(bytes(2))
    archive.finish(path)
    archive.make_room()
    assert not path.exists()


async def test_what_is_old_is_deleted_where_nothing_is_recorded(tmp_path):
    write(Archive(Recording(folder=str(tmp_path))), datetime.now(UTC) - timedelta(hours=1), seconds=1)
    async with gateway(short(), streams=(), recording={"folder": str(tmp_path), "keep_s": 60.0}) as served:

        async def gone() -> bool:
            return (await served.http.get("/api/recordings")).json() == []

        await until(gone, "it is deleted", 20)


async def test_recording_is_switched_under_the_viewers(tmp_path):
    settings = recorded(tmp_path) | {"defaults": {}}
    async with gateway(short(), streams=(), **settings) as served:
        made = await served.http.post("/api/streams", json={"id": "new", "source": "synthetic:"})
        assert made.json()["recording"] is None
        changed = (await served.http.patch("/api/streams/new", json={"record": True})).json()
        assert changed["restarted"] == []
        assert changed["stream"]["recording"]["on"] is True
        (file,) = await files(served, 1, 10_000)
        await served.http.patch("/api/streams/new", json={"record": False})

        async def ended() -> bool:
            return not (await files(served, 1))[0]["growing"]

        await until(ended, "the file is closed")
        assert frames_of(tmp_path / "new" / file["name"])[0]
        assert (await served.http.delete(file["url"])).status_code == 204
        assert (await served.http.get("/api/recordings")).json() == []
        assert (await served.http.get(file["url"])).status_code == 404


async def test_who_may_not_view_a_stream_sees_none_of_its_recordings(tmp_path):
    settings = recorded(tmp_path) | tokens(viewer=["view:demo"], other=["view:other"], admin=["admin"])
    async with gateway(short(), **settings) as served:

        async def listed(name: str) -> list[dict]:
            return (await served.http.get("/api/recordings", headers=bearer(name))).json()

        (file,) = await until(lambda: listed("viewer"), "a recording", 30)
        assert await listed("other") == []
        for name, status in (("viewer", 200), ("other", 403), ("admin", 200)):
            assert (await served.http.get(file["url"], headers=bearer(name))).status_code == status
        assert (await served.http.delete(file["url"], headers=bearer("viewer"))).status_code == 403
        for path in ("demo/..%2F..%2Fetc", "..%2F/x.mp4", f"demo/{file['name']}.bak"):
            answer = await served.http.get(f"/api/recordings/{path}", headers=bearer("admin"))
            assert answer.status_code in (404, 422)


async def test_nothing_is_recorded_without_a_folder():
    with pytest.raises(ValueError, match=r"record=true: needs recording\.folder"):
        Settings.model_validate({"defaults": {"record": True}})
    async with gateway(short(), streams=()) as served:
        wanted = {"id": "new", "source": "synthetic:", "record": True}
        answer = await served.http.post("/api/streams", json=wanted)
        assert (answer.status_code, "needs recording.folder" in answer.text) == (422, True)
        assert (await served.http.get("/api/recordings")).json() == []


def test_names_are_moments_and_nothing_else_is_listed(tmp_path):
    archive = Archive(Recording(folder=str(tmp_path)))
    path = archive.begin("demo", datetime(2026, 11, 29, 14, 3, 20, 120_000, UTC))
    assert path.name == "20261129T140320.120Z.mp4"
    path.write_bytes(b"x")
    (tmp_path / "demo" / "20261129T140320.120Z.mp4.part").write_bytes(b"x")
    (found,) = archive.files()
    assert found.starts == datetime(2026, 11, 29, 14, 3, 20, 120_000, UTC)
    assert time.time() - found.ends.timestamp() < 60
    assert httpx.URL(f"/api/recordings/demo/{found.name}").path.endswith(found.name)


def test_one_is_found_without_a_look_at_all_others(tmp_path, monkeypatch):
    archive = Archive(Recording(folder=str(tmp_path)))
    path = archive.begin("demo", datetime(2026, 11, 29, tzinfo=UTC))
    path.write_bytes(b"x")
    (listed,) = archive.files()
    monkeypatch.delattr(Path, "iterdir")
    assert archive.find("demo", path.name) == listed
    for name in ("../demo/" + path.name, "20261399T000000.000Z.mp4", "20261129T000001.000Z.mp4", ""):
        assert archive.find("demo", name) is None
    (tmp_path / "file").touch()
    assert archive.find("file", path.name) is None


def test_no_stream_is_a_way_out_of_the_folder(tmp_path):
    outside = Archive(Recording(folder=str(tmp_path)))
    path = outside.begin("private", datetime(2026, 11, 29, tzinfo=UTC))
    path.write_bytes(b"x")
    archive = Archive(Recording(folder=str(tmp_path / "shown")))
    (tmp_path / "shown" / "..data").mkdir()
    for stream in ("..", "../private", "..data", "", "."):
        assert archive.files(stream) == []
        assert archive.find(stream, path.name) is None
    assert archive.files() == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"recording\.folder='.*/file/recordings': Not a directory"):
        Archive(Recording(folder=str(tmp_path / "file" / "recordings")))
