"""HLS that begins in the past: out of the recording, on into what is live."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import av
import httpx
from fastapi import FastAPI

from loadtest.numbered_source import read
from server.gateway.app import WEB
from server.gateway.auth.guard import Guard
from server.gateway.limits.refusals import Refusals
from server.gateway.mp4 import reading
from server.gateway.record.archive import Archive
from server.gateway.record.dvr import Dvr
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.routes import hls
from server.settings import Hls, Limits, Recording
from tests.conftest import missing_peer
from tests.peers import service as peers
from tests.server.gateway.hls_media import Media
from tests.server.gateway.recorded_media import write
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens
from tests.server.gateway.test_page import on_page
from tests.server.gateway.test_recording import recorded


def numbered() -> ScriptedPlacement:
    return ScriptedPlacement(Script(gop_s=1.0, numbered=True))


async def played(served: Gateway, seconds: float, **query: str) -> None:
    """Waits until so much has been recorded."""

    async def there() -> bool:
        answer = await served.http.get("/hls/demo/dvr.m3u8", params={"from": "-600", **query})
        durations = re.findall(r"EXTINF:(.*),", answer.text)
        return answer.status_code == 200 and sum(map(float, durations)) >= seconds

    await until(there, f"{seconds} s are recorded", 30)


def numbers(url: str, seconds: float, **options: str) -> list[int]:
    """Of the pictures that FFmpeg's own player of HLS shows, from the playlist's start on."""
    found = []
    with av.open(url, options={"live_start_index": "0", **options}, timeout=20) as container:
        for frame in container.decode(video=0):
            number = read(frame.to_ndarray(format="gray"))
            assert number is not None
            found.append(number % 256)
            if len(found) >= seconds * FPS:
                break
    return found


def in_order(found: list[int]) -> bool:
    return all((later - sooner) % 256 == 1 for sooner, later in pairwise(found))


async def test_it_plays_from_the_past_on_into_live(tmp_path):
    async with gateway(numbered(), **recorded(tmp_path, file_s=1.0)) as served:
        await played(served, 4.0)
        index = await served.http.get("/hls/demo/index.m3u8", params={"from": "-3"})
        (variant,) = [line for line in index.text.splitlines() if not line.startswith("#")]
        live = (await served.http.get("/hls/demo/index.m3u8")).text
        told = r'CODECS="avc1\.\w{6},mp4a\.40\.2",RESOLUTION=\d+x\d+,FRAME-RATE=25\.000'
        assert re.findall(told, index.text) == re.findall(told, live)[:1] != []
        (most_bps, average_bps) = map(int, re.findall(r"BANDWIDTH=(\d+)", index.text))
        assert most_bps >= average_bps > 0
        text = (await served.http.get(f"/hls/demo/{variant}")).text
        media = Media.parse(text)
        wanted = datetime.now(UTC) - timedelta(seconds=3)
        assert media.entries[0].starts < wanted < media.entries[0].starts + timedelta(seconds=2.5)
        (offset_s,) = re.findall(r"#EXT-X-START:TIME-OFFSET=(.*),PRECISE=YES", text)
        begins = media.entries[0].starts + timedelta(seconds=float(offset_s))
        (named,) = re.findall(r"from=(.*)Z", unquote(variant))
        assert abs((begins - datetime.fromisoformat(f"{named}Z")).total_seconds()) < 0.01
        assert "ENDLIST" not in text
        for name in (media.entries[0].init, media.entries[0].name):
            got, head = [await served.http.request(method, f"/hls/demo/{name}") for method in ("GET", "HEAD")]
            assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
            assert head.headers["Content-Length"] == str(len(got.content))
        assert "#EXT-X-DISCONTINUITY\n" not in text, "one file goes on where the other ends"
        assert len({entry.init for entry in media.entries}) == 1
        assert len({entry.name.rpartition("/")[0] for entry in media.entries}) > 1
        made = served.worker.frames
        found = await asyncio.to_thread(numbers, f"{served.base}/hls/demo/index.m3u8?from=-3", 5.0)
        assert in_order(found)
        assert len(found) >= 5 * FPS, "more than there was when it began"
        assert 0 < (made - found[0]) % 256 < 7 * FPS, "it began in the past"
        again = Media.parse((await served.http.get(f"/hls/demo/{variant}")).text)
        names = [entry.name for entry in media.entries]
        assert [entry.name for entry in again.entries][: len(names)] == names
        assert again.sequence == media.sequence


PLAY = """
    const [url, done] = arguments;
    const video = document.createElement("video");
    video.id = "dvr";
    video.muted = true;
    document.body.append(video);
    import("/web/vendor/hls.mjs").then(({ default: Hls }) => {
      const hls = new Hls({ enableWorker: false });
      hls.loadSource(url);
      hls.attachMedia(video);
      video.play().then(() => done("plays"), (error) => done(String(error)));
    });
"""


async def test_hls_js_begins_in_the_past_and_goes_on(tmp_path):
    if not (WEB / "vendor/hls.mjs").exists():
        missing_peer("hls.js", "make web")
    tables = recorded(tmp_path) | {"defaults": {"record": True}}
    script = Script(width=320, height=180, gop_s=1.0, numbered=True, audio=False)
    async with on_page(script, **tables) as (served, page):
        await played(served, 4.0)

        def plays() -> None:
            said = page.driver.execute_async_script(PLAY, "/hls/demo/index.m3u8?from=-4")
            assert said == "plays"
            made, number = served.worker.frames, read(page.luma("#dvr"))
            assert number is not None
            assert (made - number % 256) % 256 > 2 * FPS, "it begins in the past"
            peers.until(lambda: page.run("return dvr.currentTime - dvr.seekable.start(0)") > 5, "it goes on")

        await asyncio.to_thread(plays)


async def test_where_the_stream_was_away_there_is_a_discontinuity_and_the_end_is_the_end(tmp_path):
    async with gateway(numbered(), **recorded(tmp_path)) as served:
        await played(served, 2.0)
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "another worker")
        await played(served, 4.5)
        await served.http.delete("/api/streams/demo")
        text = (await served.http.get("/hls/demo/dvr.m3u8", params={"from": "-600"})).text
        media = Media.parse(text)
        assert [entry.discontinuity for entry in media.entries].count(True) == 1
        assert text.endswith("#EXT-X-ENDLIST\n"), "the stream has gone, what was recorded of it has not"
        second = next(entry for entry in media.entries if entry.discontinuity)
        cut = (second.starts + timedelta(seconds=0.5)).isoformat()  # with a "+", which isn't quoted
        only = await served.http.get(f"/hls/demo/dvr.m3u8?from={cut}")
        assert Media.parse(only.text).entries[0].name == second.name
        before = await served.http.get("/hls/demo/dvr.m3u8", params={"from": "-600", "to": cut})
        assert [e.name for e in Media.parse(before.text).entries] == [
            e.name for e in media.entries[: media.entries.index(second) + 1]
        ]
        assert before.text.endswith("#EXT-X-ENDLIST\n")


async def test_what_cannot_be_played_says_why(tmp_path):
    settings = recorded(tmp_path) | tokens(viewer=["view:demo"], other=["view:other"])
    async with gateway(numbered(), **settings) as served:

        async def get(path: str, token: str = "viewer", **params) -> tuple[int, str]:
            answer = await served.http.get(path, params=params, headers=bearer(token))
            return answer.status_code, answer.json()["detail"] if answer.status_code >= 400 else ""

        path = "/hls/demo/index.m3u8"
        rule = "must be a time with its zone (RFC 3339) or negative seconds, as -600"
        for bad in ("yesterday", "2026-11-29T12:00:00", ""):
            assert await get(path, **{"from": bad}) == (422, f"from={bad!r}: {rule}")
        for bad in ("600", "nan", "-inf", "-1e300"):
            assert await get(path, **{"from": bad}) == (
                422,
                f"from={bad!r}: seconds must be before now, as -600 is",
            )
        assert (await get(path, **{"from": "2100-01-01T00:00:00Z"}))[1].endswith("must be in the past")
        backwards = await get(path, **{"from": "-10", "to": "-20"})
        assert backwards == (422, "to='-20': must be later than from='-10'")
        assert await get(path, **{"from": "-600", "to": "-500"}) == (
            404,
            "stream 'demo' has no recording of that time",
        )
        assert await get(path, **{"from": "-86400"}) == (
            422,
            "from='-86400': 24.0 h until now; must be at most 6 h",
        )
        assert await get(path, to="-10") == (422, "to='-10' without from: what is live has no end")
        assert (await get(path, "other", **{"from": "-10"}))[0] == 403
        for wrong in ("x.mp4/init.mp4", "x.mp4/0.m4s", "..%2Fx/0.m4s"):
            assert (await get(f"/hls/demo/recorded/{wrong}"))[0] == 404
        signed = await served.http.post("/api/streams/demo/hls-path", headers=bearer("viewer"))
        url = f"{served.base}{signed.json()['url']}?from=-60"

        async def there() -> bool:
            return (await served.http.get(url)).status_code == 200

        await until(there, "something is recorded", 30)
        assert in_order(await asyncio.to_thread(numbers, url, 1.0)), "a player without a token plays it"


async def test_it_ends_once_what_was_asked_for_is_recorded(tmp_path: Path):
    archive, now = Archive(Recording(folder=str(tmp_path))), datetime.now(UTC)
    write(archive, now - timedelta(seconds=12), seconds=8)
    records = SimpleNamespace(outputs=SimpleNamespace(record=SimpleNamespace(state=object())))
    streams, threads = SimpleNamespace(get=lambda stream: records), RecordThreads()
    guard = Guard(None, Limits(), Refusals(lambda reason: None))
    app = FastAPI()
    app.include_router(hls.router(streams, Dvr(Index(archive), Hls()), threads, guard))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:

        async def text(to: datetime) -> str:
            times = {"from": (now - timedelta(minutes=1)).isoformat(), "to": to.isoformat()}
            return (await http.get("/hls/demo/dvr.m3u8", params=times)).text

        assert "#EXT-X-ENDLIST" in await text(now - timedelta(seconds=5))
        for comes in (now + timedelta(seconds=60), now + timedelta(hours=9), now - timedelta(seconds=2)):
            found = await text(comes)
            assert "recorded/" in found
            assert "#EXT-X-ENDLIST" not in found, "pictures of that time may still come"
    threads.close()


def test_numbers_stay_when_the_oldest_file_is_deleted(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    index, start = Index(archive), datetime.now(UTC) - timedelta(minutes=5)
    for number in range(3):
        write(archive, start + timedelta(seconds=10 * number + number), seconds=10)
    dvr = Dvr(index, Hls())
    now = datetime.now(UTC)
    window = dvr.window("demo", start, now)
    assert window is not None
    assert len(window.segments) == 15
    assert [segment.discontinuity for segment in window.segments].count(True) == 2
    oldest = archive.files("demo")[0]
    archive.delete(oldest)
    after = dvr.window("demo", start, now)
    assert after is not None
    assert after.sequence - window.sequence == 5
    assert after.discontinuities - window.discontinuities == 1
    assert len(after.segments) == 10
    assert after.segments[0].file == window.segments[5].file
    assert dvr.read("demo", oldest.name, window.segments[0].offset) is None


def test_a_playlist_of_hours_loses_its_front_and_keeps_its_numbers(tmp_path: Path, monkeypatch):
    archive = Archive(Recording(folder=str(tmp_path)))
    start = datetime.now(UTC) - timedelta(minutes=5)
    write(archive, start, seconds=10)
    write(archive, start + timedelta(seconds=10.5), seconds=10)
    dvr, end = Dvr(Index(archive), Hls()), start + timedelta(seconds=20.5)
    whole = dvr.window("demo", start, end)
    assert whole is not None
    assert len(whole.segments) == 10
    for most_s, first in ((20.0, 0), (15.0, 2), (7.0, 6)):
        monkeypatch.setattr("server.gateway.record.dvr.MOST_S", most_s)
        shorter = dvr.window("demo", start, end)
        assert shorter is not None
        assert shorter.sequence - whole.sequence == first
        assert shorter.discontinuities - whole.discontinuities == int(first > 4)
        assert [s.starts for s in shorter.segments] == [s.starts for s in whole.segments[first:]]


def test_a_segment_has_one_number_wherever_its_playlist_begins(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    start = datetime.now(UTC) - timedelta(minutes=5)
    for number in range(3):
        write(archive, start + timedelta(seconds=11 * number), seconds=10)
    dvr, end = Dvr(Index(archive), Hls()), start + timedelta(seconds=33)
    numbers: dict[tuple[str, int], set[int]] = {}
    discontinuities: dict[str, set[int]] = {}
    for begins_s in (25, 15, 1, 5, 13, 29):  # as of "the last so many seconds", or of another player
        window = dvr.window("demo", start + timedelta(seconds=begins_s), end)
        assert window is not None
        assert dvr.window("demo", start, start + timedelta(seconds=9)) is not None, "one that has ended"
        for sequence, segment in enumerate(window.segments, window.sequence):
            numbers.setdefault((segment.file, segment.offset), set()).add(sequence)
        discontinuities.setdefault(window.segments[0].file, set()).add(window.discontinuities)
    assert len(numbers) == 15
    assert {len(found) for found in (*numbers.values(), *discontinuities.values())} == {1}
    assert len(set.union(*discontinuities.values())) == 3


def test_hours_of_short_files_are_read_once(tmp_path: Path, monkeypatch):
    archive, start = Archive(Recording(folder=str(tmp_path))), datetime.now(UTC) - timedelta(hours=1)
    first = write(archive, start, seconds=1)
    for number in range(1, 80):
        path = archive.begin("demo", start + timedelta(seconds=30 * number))
        path.write_bytes(first.read_bytes())
        archive.finish(path)
    dvr, end, read_files = Dvr(Index(archive), Hls()), datetime.now(UTC), []
    fragments = reading.fragments
    monkeypatch.setattr(reading, "fragments", lambda *args: read_files.append(args) or fragments(*args))
    once = dvr.window("demo", start, end)
    assert once is not None
    assert len(once.segments) == len(read_files) == 80
    assert dvr.window("demo", start, end) == once
    assert len(read_files) == 80, "players ask every few seconds"
    monkeypatch.setattr("server.gateway.record.index._MOST_RUNS", 40)
    monkeypatch.setattr("server.gateway.record.dvr._MOST_SEGMENTS", 40)
    assert dvr.window("demo", start, end) == once
    assert len(dvr._index._known) <= 40
    assert len(dvr._files) <= 40


def test_a_file_that_a_crash_has_cut_plays_up_to_its_last_whole_fragment(tmp_path: Path):
    archive = Archive(Recording(folder=str(tmp_path)))
    path = write(archive, datetime.now(UTC) - timedelta(minutes=5), seconds=10)
    (file,) = archive.files()
    whole = Index(archive).of(file)
    assert whole is not None
    for size in (path.stat().st_size - 1, whole.runs[3].offset + 9, whole.runs[3].offset):
        with path.open("r+b") as opened:
            opened.truncate(size)
        cut = Index(archive).of(file)
        assert cut is not None
        assert cut.runs[:3] == whole.runs[:3]
        assert cut.runs[-1].offset + cut.runs[-1].size <= size
    for size in (whole.runs[0].offset + 5, 20, 0):
        with path.open("r+b") as opened:
            opened.truncate(size)
        assert Index(archive).of(file) is None


async def test_a_player_is_told_of_every_format_and_spared_what_cannot_be_read(tmp_path: Path):
    archive, start = Archive(Recording(folder=str(tmp_path))), datetime.now(UTC) - timedelta(minutes=5)
    for number, width in enumerate((640, 64, 1280)):
        path = write(archive, start + timedelta(seconds=2 * number), seconds=2, width=width)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"hvc1"))
    dvr, threads = Dvr(Index(archive), Hls()), RecordThreads()
    app = FastAPI()
    app.include_router(hls.router(None, dvr, threads, Guard(None, Limits(), Refusals(lambda reason: None))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
        text = (await http.get("/hls/demo/index.m3u8", params={"from": start.isoformat()})).text
    threads.close()
    told = r'CODECS="avc1\.\w{6},mp4a\.40\.2,avc1\.\w{6}",RESOLUTION=640x180,FRAME-RATE=25\.000\n'
    assert re.search(told, text), "levels differ, the sound doesn't"
