"""Recordings that go elsewhere: sent, listed, played and deleted there; bounded while it is away."""

import asyncio
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import fsspec
import httpx
import pytest
from fastapi import FastAPI

from server.gateway import errors
from server.gateway.auth.guard import Guard
from server.gateway.limits.refusals import Refusals
from server.gateway.mp4 import reading
from server.gateway.record.archive import Archive
from server.gateway.record.cut import cut
from server.gateway.record.dvr import Dvr
from server.gateway.record.file import RecordedFile
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.record.uploader import Uploader
from server.gateway.routes import hls, recordings
from server.settings import Hls, Limits, Recording, Settings
from tests.server.gateway.recorded_media import write
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.test_download import shown
from tests.server.gateway.test_dvr import numbered
from tests.server.gateway.test_recording import files, recorded

START = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.gateway.record.uploader._LOOK_S", 0.1)
    monkeypatch.setattr("server.gateway.record.uploader._FIRST_RETRY_S", 0.1)
    monkeypatch.setattr("server.gateway.record.uploader._LAST_RETRY_S", 0.1)


def made(folder: Path, remote: str, **recording) -> tuple[Archive, Index, Uploader]:
    archive = Archive(Recording(folder=str(folder), remote=remote, **recording))
    index = Index(archive)
    assert archive.remote is not None
    return archive, index, Uploader(archive, index, archive.remote)


async def test_what_is_finished_goes_there_and_is_played_from_there(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    settings = recorded(here, file_s=1.0, remote=there.as_uri())
    async with gateway(numbered(), **settings) as served:
        await files(served, 3)

        async def sent() -> list[dict]:
            found = await files(served, 3)
            return found if sum(file["remote"] for file in found) >= 2 else []

        found = await until(sent, "two files are there")
        growing = [file["name"] for file in found if file["growing"]]
        assert {path.name for path in (here / "demo").iterdir()} >= set(growing)
        first = found[0]
        answer = await served.http.get(first["url"])
        assert (answer.status_code, len(answer.content)) == (200, first["bytes"])
        for asked, got in (
            ("bytes=4-7", slice(4, 8)),
            ("bytes=-9", slice(-9, None)),
            ("bytes=9-", slice(9, None)),
        ):
            part = await served.http.get(first["url"], headers={"Range": asked})
            assert (part.status_code, part.content) == (206, answer.content[got])
        for beyond in (f"bytes={first['bytes']}-", "bytes=999999999-9999999999", "bytes=-0"):
            refused = await served.http.get(first["url"], headers={"Range": beyond})
            assert (refused.status_code, refused.headers["Content-Range"]) == (
                416,
                f"bytes */{first['bytes']}",
            )
        for odd in ("bytes=9-4", "bytes=-", "bytes=0-1,4-5", "lines=1-2"):
            assert (await served.http.get(first["url"], headers={"Range": odd})).content == answer.content
        assert not (here / "demo" / first["name"]).exists()
        assert (await served.http.get("/api/recordings/upload")).json()["reason"] == ""
        assert (await served.metrics())["livesr_recording_upload_failing"] == 0
        whole = await served.http.get("/api/recordings/demo.mp4", params={"from": "-600"})
        (tmp_path / "whole.mp4").write_bytes(whole.content)
        numbers, _, _ = shown(tmp_path / "whole.mp4")
        assert [(b - a) % 256 for a, b in pairwise(numbers)] == [1] * (len(numbers) - 1)
        assert len(numbers) >= 2 * FPS
        assert (await served.http.delete(first["url"])).status_code == 204
        assert first["name"] not in {file["name"] for file in await files(served, 1)}
        assert not list(there.glob(f"demo/{first['name'][:-4]}*"))


def test_the_next_run_finds_what_is_there(tmp_path: Path):
    fsspec.filesystem("memory").store.clear()
    archive, _, uploader = made(tmp_path, "memory://bucket/recordings")
    pts = round(START.timestamp() * 90_000)
    write(archive, START, seconds=4, pts=pts)
    write(archive, START + timedelta(seconds=4), seconds=4, number=100, pts=pts + 4 * 90_000)
    before = archive.files()
    uploader.start()
    try:
        wait(lambda: not archive.local())
    finally:
        uploader.close()
    fsspec.filesystem("memory").pipe_file("/bucket/recordings/demo/notes.txt", b"not ours")

    archive, index, _ = made(tmp_path, "memory://bucket/recordings")
    assert archive.files() == []
    assert archive.remote is not None
    archive.remote.look()
    assert [(f.name, f.starts, f.size, f.remote) for f in archive.files("demo")] == [
        (f.name, f.starts, f.size, True) for f in before
    ]
    assert [file.ends for file in archive.files()] == [file.ends for file in before]
    window = Dvr(index, Hls()).window("demo", START, START + timedelta(seconds=8))
    assert window is not None
    assert [segment.discontinuity for segment in window.segments] == [False] * 4
    last = window.segments[-1]
    data = Dvr(index, Hls()).read("demo", last.file, last.offset)
    assert data is not None
    assert len(data) == last.bytes
    found = cut(index, "demo", START + timedelta(seconds=2), START + timedelta(seconds=6))
    assert found is not None
    (tmp_path / "cut.mp4").write_bytes(b"".join(found.chunks()))
    assert shown(tmp_path / "cut.mp4")[0] == [*range(2 * FPS, 4 * FPS), *range(100, 100 + 2 * FPS)]


def test_who_records_does_not_wait_for_what_is_deleted_there(tmp_path: Path):
    archive, index, _ = made(tmp_path, "memory://other/recordings")
    for hours in range(2):
        write(archive, START + timedelta(hours=hours), seconds=1)
    sent, kept = archive.files()
    indexed = index.of(sent)
    assert archive.remote is not None
    assert indexed is not None
    archive.remote.upload(sent, str(archive.path(sent)), list(indexed.runs))
    archive.path(sent).unlink()
    archive.settings = archive.settings.model_copy(update={"keep_bytes": kept.size})
    archive.make_room()
    assert [file.remote for file in archive.files()] == [True, False]
    archive.make_room(remote=True)
    assert archive.files() == [kept]


def test_while_it_is_away_files_stay_within_bounds_and_go_when_it_is_back(tmp_path: Path):
    far = tmp_path / "far"
    far.write_text("no folder")
    archive, _, uploader = made(tmp_path / "here", (far / "in").as_uri())
    for hours in range(4):
        write(archive, START + timedelta(hours=hours), seconds=1)
    size = archive.files()[0].size
    uploader.start()
    try:
        wait(lambda: "far" in uploader.state.reason or "directory" in uploader.state.reason)
        assert (uploader.state.waiting, uploader.state.waiting_bytes) == (4, 4 * size)
        archive.settings = archive.settings.model_copy(update={"keep_bytes": 3 * size})
        archive.make_room()
        assert len(archive.local()) == 3, "the oldest is lost, and the disk is not filled"
        far.unlink()
        wait(lambda: not archive.local())
        assert uploader.state.reason == ""
        assert [file.remote for file in archive.files()] == [True] * 3
        archive.settings = archive.settings.model_copy(update={"keep_bytes": 2 * size})
        wait(lambda: len(archive.files()) == 2)
        assert len(list((far / "in/demo").glob("*.mp4"))) == 2, "it is deleted there, too"
    finally:
        uploader.close()
    shutil.rmtree(far)
    assert archive.remote is not None
    with pytest.raises(OSError, match="No such file"):
        archive.open(archive.files()[0])


def test_one_that_ends_while_it_is_looked_at_is_sent_once_and_whole(tmp_path: Path, monkeypatch):
    archive, _, uploader = made(tmp_path / "here", (tmp_path / "there").as_uri())
    path = write(archive, START, seconds=2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-999])
    reasons = []
    monkeypatch.setattr(uploader, "_tell", reasons.append)

    def ends_now(file: RecordedFile) -> bool:
        path.write_bytes(whole)
        return False

    monkeypatch.setattr(archive, "is_growing", ends_now)
    uploader.start()
    try:
        wait(lambda: not archive.local())
    finally:
        uploader.close()
    assert not any(reasons)
    (sent,) = (tmp_path / "there/demo").glob("*.mp4")
    assert sent.read_bytes() == whole


def test_what_is_deleted_while_it_is_sent_is_nowhere(tmp_path: Path, monkeypatch):
    archive, _, uploader = made(tmp_path, "memory://deleted/recordings")
    write(archive, START, seconds=1)
    (file,) = archive.files()
    remote, sent = archive.remote, []
    assert remote is not None
    upload = remote.upload

    def deleted_meanwhile(*args) -> None:
        upload(*args)
        sent.append(archive.delete(file))

    monkeypatch.setattr(remote, "upload", deleted_meanwhile)
    uploader.start()
    try:
        wait(lambda: sent)
    finally:
        uploader.close()
    assert archive.files() == []
    remote.look()
    assert archive.files() == []


def test_what_a_driver_says_shows_no_secret(tmp_path: Path, monkeypatch):
    _, _, uploader = made(tmp_path, "memory://loud/recordings")

    def refuse() -> None:
        raise OSError(None, "403 of https://me:secret@there.example/bucket?signature=secret")

    monkeypatch.setattr(uploader._remote, "look", refuse)
    uploader.start()
    try:
        wait(lambda: uploader.state.reason)
    finally:
        uploader.close()
    assert uploader.state.reason == "403 of https://***@there.example/bucket?***"


def test_once_one_is_sent_nothing_fails_any_more_however_many_wait(tmp_path: Path, monkeypatch):
    archive, _, uploader = made(tmp_path, "memory://many/recordings")
    for hours in range(3):
        write(archive, START + timedelta(hours=hours), seconds=1)
    assert archive.remote is not None
    upload, reasons = archive.remote.upload, []

    def at_the_second_try(*args) -> None:
        reasons.append(uploader.state.reason)
        if len(reasons) == 1:
            raise OSError(None, "it is away")
        upload(*args)

    monkeypatch.setattr(archive.remote, "upload", at_the_second_try)
    uploader.start()
    try:
        wait(lambda: not archive.local())
    finally:
        uploader.close()
    assert reasons == ["", "it is away", "", ""]


def test_what_cannot_be_read_now_is_not_sent_as_empty(tmp_path: Path, monkeypatch):
    archive, _, uploader = made(tmp_path, "memory://unread/recordings")
    write(archive, START, seconds=1)
    read, failures = reading.read_init, iter([OSError(24, "Too many open files")])

    def fails_once(*args) -> bytes:
        if (failure := next(failures, None)) is not None:
            raise failure
        return read(*args)

    monkeypatch.setattr(reading, "read_init", fails_once)
    uploader.start()
    try:
        wait(lambda: not archive.local())
    finally:
        uploader.close()
    assert archive.remote is not None
    assert archive.remote.runs(archive.files()[0])


def wait(condition) -> None:
    asyncio.run(until(condition, "it is so"))


def test_an_address_that_leads_nowhere_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="remote: needs folder"):
        Settings.model_validate({"recording": {"remote": "s3://bucket"}})
    for address, why in (
        ("nope://user:secret@x/y", r"recording\.remote='nope://.*x/y': Protocol not known: nope"),
        ("/mnt/nas", r"recording\.remote='/mnt/nas': must be an address, as s3://bucket/folder"),
        ("s3:bucket/folder", r"recording\.remote='s3:bucket/folder': must be an address, as s3://"),
        ("s3://", r"recording\.remote='s3://': must be an address, as s3://bucket/folder"),
        ("reference://x", r"recording\.remote='reference://x': .*fo"),
    ):
        with pytest.raises(ValueError, match=why) as failed:
            Archive(Recording(folder=str(tmp_path), remote=address))
        assert "secret" not in str(failed.value)


def test_where_it_is_not_installed_the_error_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    rule = r"recording\.remote='s3://bucket': needs fsspec.*'livesr\[remote\]'"
    with pytest.raises(ValueError, match=rule):
        Archive(Recording(folder=str(tmp_path), remote="s3://bucket"))


async def test_where_it_hangs_only_who_asks_for_recordings_waits(tmp_path: Path, monkeypatch):
    archive, index, _ = made(tmp_path, "memory://slow/recordings")
    write(archive, START, seconds=1)
    (file,) = archive.files()
    assert archive.remote is not None
    archive.remote.upload(file, str(archive.path(file)), [])
    archive.path(file).unlink()
    turns, waiting = threading.Event(), []

    def hang(*args) -> None:
        waiting.append(args)
        turns.wait()
        raise OSError(None, "it hung")

    monkeypatch.setattr(archive.remote, "open", hang)
    monkeypatch.setattr(archive.remote, "runs", hang)
    app, guard, threads = FastAPI(), Guard(None, Limits(), Refusals(lambda reason: None)), RecordThreads()
    errors.install(app)
    app.include_router(recordings.router(archive, index, None, threads, guard))
    app.include_router(hls.router(None, Dvr(index, Hls()), threads, guard))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
        urls = (f"/api/recordings/demo/{file.name}", f"/hls/demo/recorded/{file.name}/init.mp4")
        asked = [asyncio.create_task(http.get(url)) for url in 3 * urls]
        try:
            await until(lambda: len(waiting) >= 2, "they are asked for")
            async with asyncio.timeout(10):
                await asyncio.gather(*(asyncio.to_thread(str) for _ in range(2)))
        finally:
            turns.set()
            answers = await asyncio.gather(*asked)
            threads.close()
    assert {answer.status_code for answer in answers} == {502, 404}
