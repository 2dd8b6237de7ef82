"""A time of a stream as one MP4: cut at key frames, over files and gaps, as it was encoded."""

import asyncio
import json
import shutil
import subprocess
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import av
import pytest
from fastapi import FastAPI

from loadtest.numbered_source import read
from server.gateway.auth.guard import Guard
from server.gateway.limits.refusals import Refusals
from server.gateway.record.archive import Archive
from server.gateway.record.cut import FormatChanges, cut
from server.gateway.record.file import RecordedFile
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.routes import recordings
from server.settings import Limits, Recording
from tests.conftest import missing_peer
from tests.server.gateway.recorded_media import write
from tests.server.gateway.scripted_gateway import gateway
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens
from tests.server.gateway.test_recording import files, recorded

START = datetime(2026, 11, 29, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def shown(path: Path) -> tuple[list[int], list[float], float]:
    """Numbers and times of its pictures, and the seconds of sound."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    numbers = [read(frame.to_ndarray(format="gray")) for frame in frames]
    assert None not in numbers
    with av.open(str(path)) as container:
        sound = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
    return [number % 256 for number in numbers if number is not None], [f.time for f in frames], sound


def test_it_is_cut_at_key_frames_and_goes_over_files_and_gaps(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    pts = round(START.timestamp() * 90_000)
    write(archive, START, seconds=6, pts=pts)
    write(archive, after(6), seconds=4, number=6 * FPS, pts=pts + 6 * 90_000)
    write(archive, after(100), seconds=4, number=200)
    index = Index(archive)

    def made(from_s: float, to_s: float) -> tuple[list[int], list[float], float]:
        found = cut(index, "demo", after(from_s), after(to_s))
        assert found is not None
        data = b"".join(found.chunks())
        assert len(data) == found.size
        path = tmp_path / "cut.mp4"
        path.write_bytes(data)
        return shown(path)

    numbers, times, sound = made(3.0, 7.0)
    assert numbers == list(range(2 * FPS, 8 * FPS)), "from the key frame before to the one after"
    assert times[0] == 0
    assert [b - a for a, b in pairwise(times)] == pytest.approx([1 / FPS] * (len(times) - 1), abs=0.001)
    assert sound == pytest.approx(6.0, abs=0.1)

    numbers, times, sound = made(8.0, 102.0)
    assert numbers == [*range(8 * FPS, 10 * FPS), *range(200, 200 + 2 * FPS)]
    assert times[-1] == pytest.approx(4.0 - 1 / FPS, abs=0.1), "what was away is left out"
    assert sound == pytest.approx(4.0, abs=0.2)

    said = probe(tmp_path / "cut.mp4")
    assert float(said["format"]["duration"]) == pytest.approx(4.0, abs=0.1)
    assert said["streams"][0]["nb_read_frames"] == str(4 * FPS)
    assert cut(index, "demo", after(20), after(90)) is None
    assert cut(index, "other", START, after(90)) is None


def probe(path: Path) -> dict:
    ffprobe = shutil.which("ffprobe") or missing_peer("ffprobe", "apt-get install ffmpeg")
    show = ("-v", "error", "-of", "json", "-show_format", "-show_streams", "-count_frames")
    said = subprocess.run([ffprobe, *show, path], check=True, capture_output=True, text=True)
    assert said.stderr == "", "nothing that it finds fault with"
    return json.loads(said.stdout)


def test_it_is_never_in_memory_as_a_whole(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    path = write(archive, START, seconds=1)  # a single fragment
    with path.open("r+b") as file:
        data = file.read()
        mdat = data.rindex(b"mdat") - 4
        file.seek(mdat)
        file.write((len(data) - mdat + (64 << 20)).to_bytes(4, "big"))
        file.truncate(len(data) + (64 << 20))
    found = cut(Index(archive), "demo", START, after(10))
    assert found is not None
    tracemalloc.start()
    try:
        assert sum(map(len, found.chunks())) == found.size > 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_another_format_is_another_file(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    write(archive, START, seconds=2)
    write(archive, after(4), seconds=2, width=160)
    with pytest.raises(FormatChanges, match="change at 2026-11-29T12:00:04"):
        cut(Index(archive), "demo", START, after(10))
    assert cut(Index(archive), "demo", after(3), after(10)) is not None


async def test_it_is_fetched_while_it_is_recorded(tmp_path: Path):
    settings = recorded(tmp_path) | tokens(viewer=["view:demo"], other=["view:other"])
    placement = ScriptedPlacement(Script(gop_s=1.0, numbered=True))
    async with gateway(placement, **settings) as served:
        served.http.headers.update(bearer("viewer"))
        await files(served, 1, 20_000)
        path = "/api/recordings/demo.mp4"
        answer = await served.http.get(path, params={"from": "-600"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "video/mp4"), answer.text
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="demo-20')
        (tmp_path / "got.mp4").write_bytes(answer.content)
        numbers, _, _ = shown(tmp_path / "got.mp4")
        assert [(b - a) % 256 for a, b in pairwise(numbers)] == [1] * (len(numbers) - 1)
        assert len(numbers) >= FPS
        for query, status, why in (
            ({"from": "-600", "to": "-500"}, 404, "stream 'demo' has no recording of that time"),
            ({"from": "soon"}, 422, "from='soon': must be a time with its zone"),
            ({"from": "-5", "to": "-6"}, 422, "to='-6': must be later than from='-5'"),
            ({"from": "-90000"}, 422, "25.0 h until now; must be at most 24 h"),
            ({}, 422, "from: Field required"),
        ):
            answer = await served.http.get(path, params=query)
            assert (answer.status_code, why in answer.json()["detail"]) == (status, True), answer.text
        answer = await served.http.get(path, params={"from": "-5"}, headers=bearer("other"))
        assert answer.status_code == 403


async def test_a_file_that_grows_while_it_is_fetched_is_sent_as_far_as_it_went(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    path = write(archive, datetime.now(UTC) - timedelta(seconds=9), seconds=2)
    data, got = path.read_bytes(), []
    app = FastAPI()
    guard = Guard(None, Limits(), Refusals(lambda reason: None))
    app.include_router(recordings.router(archive, Index(archive), None, RecordThreads(), guard))

    async def send(message) -> None:
        if message["type"] == "http.response.start":
            assert (b"content-length", str(len(data)).encode()) in message["headers"]
            path.write_bytes(data + data)
        got.append(message.get("body", b""))

    url = f"/api/recordings/demo/{path.name}"
    scope = {"type": "http", "method": "GET", "path": url, "headers": [], "query_string": b"", "client": None}
    await app(scope, asyncio.Event().wait, send)
    assert b"".join(got) == data, "a byte more than was promised breaks the connection off"


@pytest.mark.parametrize("what", ["/api/recordings/demo/{name}", "/api/recordings/demo.mp4"])
async def test_a_file_is_closed_where_its_reader_goes_in_the_middle(tmp_path: Path, monkeypatch, what: str):
    archive, opened = Archive(Recording(folder=str(tmp_path))), []
    path = write(archive, datetime.now(UTC) - timedelta(seconds=9), seconds=2)
    really = archive.open

    def remembered(file: RecordedFile) -> BinaryIO:
        opened.append(really(file))
        return opened[-1]

    monkeypatch.setattr(archive, "open", remembered)
    monkeypatch.setattr(recordings, "_CHUNK_BYTES", 1000)
    app, gone = FastAPI(), asyncio.Event()
    guard, threads = Guard(None, Limits(), Refusals(lambda reason: None)), RecordThreads()
    app.include_router(recordings.router(archive, Index(archive), None, threads, guard))
    pieces = []

    async def send(message) -> None:
        pieces.append(message.get("body", b""))
        if len(pieces) == 3:
            gone.set()
            await asyncio.sleep(30)

    async def receive() -> dict:
        await gone.wait()
        return {"type": "http.disconnect"}

    url = what.format(name=path.name)
    scope = {"type": "http", "method": "GET", "path": url, "headers": [], "client": None}
    await app(scope | {"query_string": b"from=-60"}, receive, send)
    assert 0 < len(b"".join(pieces)) < path.stat().st_size
    assert opened
    assert all(file.closed for file in opened)
    threads.close()
