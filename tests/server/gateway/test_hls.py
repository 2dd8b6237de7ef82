"""HLS of a real gateway, over HTTP, played by FFmpeg."""

import asyncio
import itertools

import av
import pytest

from server.wire.messages import JobImpossible
from tests.server.gateway.hls_media import Media
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import FPS
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


async def media(served: Gateway) -> Media:
    response = await served.http.get("/hls/demo/media.m3u8", timeout=20)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    assert response.headers["Cache-Control"] == "no-cache"
    return Media.parse(response.text)


async def segments(served: Gateway, count: int) -> Media:
    async def enough() -> Media | None:
        found = await media(served)
        return found if len(found.entries) >= count else None

    return await until(enough, f"{count} segments")


def one_second() -> dict:
    return {"placement": ScriptedPlacement(Script(gop_s=1.0)), "hls": {"segment_s": 1.0}}


async def test_ffmpeg_plays_picture_and_sound():
    async with gateway(**one_second()) as served:
        await segments(served, 3)

        def play() -> tuple[list[float], int, str]:
            url = f"{served.base}/hls/demo/index.m3u8"
            with av.open(url, options={"live_start_index": "0"}) as container:
                video, audio = container.streams.video[0], container.streams.audio[0]
                times: list[float] = []
                sound = 0
                for packet in container.demux(video, audio):
                    for frame in packet.decode():
                        if isinstance(frame, av.VideoFrame):
                            times.append(frame.time)
                        else:
                            sound += frame.samples
                    if len(times) >= 60:
                        break
                return times, sound, f"{video.width}x{video.height}"

        times, sound, size = await asyncio.to_thread(play)
        assert size == "160x120"
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert gaps == pytest.approx([0.04] * len(gaps), abs=0.001)
        assert sound / 48_000 == pytest.approx(times[-1] - times[0], abs=1.1)


async def test_a_playlist_goes_on_over_a_workers_death():
    placement = ScriptedPlacement(Script(gop_s=1.0))
    async with gateway(placement, hls={"segment_s": 1.0, "segments": 60}) as served:
        before = await segments(served, 2)
        served.worker.die()

        async def resumed() -> Media | None:
            found = await media(served)
            return found if any(entry.discontinuity for entry in found.entries[:-1]) else None

        after = await until(resumed, "segments of the second worker")
        # To a player a segment is its number: none may change its own, nor come again.
        names = after.numbered()
        assert before.numbered().items() <= names.items()
        assert len(set(names.values())) == len(names)


async def test_a_player_that_comes_first_waits_for_the_first_segment():
    async with gateway(**one_second()) as served:
        response = await served.http.get("/hls/demo/index.m3u8", timeout=20)
        assert response.status_code == 200
        assert "#EXT-X-STREAM-INF" in response.text


async def test_files_may_be_cached_and_read_by_the_sites_that_are_named():
    async with gateway(**one_second(), server={"cors_origins": ["*"]}) as served:
        entry = (await segments(served, 1)).entries[0]
        for name in (entry.name, entry.init):
            response = await served.http.get(f"/hls/demo/{name}", headers={"Origin": "https://other.example"})
            assert response.status_code == 200
            assert response.headers["Content-Type"] == "video/mp4"
            assert "immutable" in response.headers["Cache-Control"]
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        head = await served.http.head(f"/hls/demo/{entry.name}")
        assert head.status_code == 200
        assert int(head.headers["Content-Length"]) > 1000


async def test_players_are_counted():
    async with gateway(**one_second()) as served:
        await served.http.get("/hls/demo/media.m3u8", headers={"User-Agent": "one"}, timeout=20)
        await served.http.get("/hls/demo/media.m3u8", headers={"User-Agent": "two"}, timeout=20)
        assert (await served.stream())["viewers"]["hls"] == 2
        assert (await served.metrics())['livesr_viewers{protocol="hls",stream="demo"}'] == 2


async def test_a_stream_without_a_picture_says_so():
    async with gateway(ScriptedPlacement(Script(live=False))) as served:
        response = await served.http.get("/hls/demo/index.m3u8", timeout=20)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert "starting" in response.json()["detail"]
        served.worker.say(JobImpossible(reason="no video"))
        await served.in_state("failed")
        response = await served.http.get("/hls/demo/index.m3u8")
        assert response.status_code == 409
        assert "no video" in response.json()["detail"]


async def test_a_stream_that_ends_gives_its_tail_and_says_that_it_was_the_last():
    async with gateway(**one_second()) as served:
        await segments(served, 2)
        assert "#EXT-X-ENDLIST" not in (await served.http.get("/hls/demo/media.m3u8")).text
        served.worker.hang()
        served.worker.say(JobImpossible(reason="the source has ended"))
        stream = await served.in_state("failed")
        response = await served.http.get("/hls/demo/media.m3u8")
        assert response.text.endswith("#EXT-X-ENDLIST\n")
        listed_s = sum(entry.duration_s for entry in Media.parse(response.text).entries)
        assert listed_s * FPS == pytest.approx(stream["frames"]["total"], abs=0.1)
