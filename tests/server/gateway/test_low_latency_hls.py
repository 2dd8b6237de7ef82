"""Parts, blocking reloads, delta updates and preload hints, as Apple's rules for low latency have them."""

import asyncio
import re
from itertools import pairwise

import pytest

from server.gateway.hls import playlist
from server.gateway.hls.segments import PART_S
from server.wire.messages import JobImpossible
from tests.server.gateway.hls_media import Source
from tests.server.gateway.scripted_gateway import Gateway, gateway

PART = re.compile(r'#EXT-X-PART:DURATION=([0-9.]+),URI="([^"]+)"(,INDEPENDENT=YES)?')
HINT = re.compile(r'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="([^"]+)"')


def value(text: str, name: str) -> float:
    return float(re.search(rf"[:,]{name}=([0-9.]+)", text)[1])


def parts_by_segment(text: str) -> list[list[tuple[float, str, bool]]]:
    """Duration, name and independence of the parts before each segment, and those of the one that grows."""
    segments = [[]]
    for line in text.splitlines():
        if part := PART.fullmatch(line):
            segments[-1].append((float(part[1]), part[2], bool(part[3])))
        elif line and not line.startswith("#"):
            segments.append([])
    return segments


@pytest.mark.parametrize("fps", [10, 12.5, 15, 24, 25, 30, 50, 60])
def test_parts_are_as_long_as_the_rules_say(fps):
    source = Source(fps=fps)
    source.run(9.5)
    text = playlist.media(source.sink)
    target_s = value(text, "PART-TARGET")
    assert 0.2 <= target_s <= 0.34
    assert value(text, "PART-HOLD-BACK") >= 3 * target_s
    *whole, growing = parts_by_segment(text)
    assert growing
    for parts in whole[1:]:
        assert sum(duration_s for duration_s, _, _ in parts) == pytest.approx(2.0, abs=2 / fps)
        assert all(0.85 * target_s <= duration_s for duration_s, _, _ in parts[:-1])
        assert all(duration_s <= target_s + 1e-5 for duration_s, _, _ in parts)
        assert [independent for _, _, independent in parts] == [True] + [False] * (len(parts) - 1)


@pytest.mark.parametrize("fps", [2, 5, 8])
def test_pictures_that_are_far_apart_make_parts_of_one_or_few(fps):
    source = Source(fps=fps)
    source.run(9.0)
    text = playlist.media(source.sink)
    longest_s = max(duration_s for parts in parts_by_segment(text) for duration_s, _, _ in parts)
    assert longest_s <= value(text, "PART-TARGET") + 1e-5
    assert longest_s <= max(PART_S, 1 / fps) + 1e-5


@pytest.mark.parametrize(("held_s", "back_s"), [(0.4, 1.2), (0.7, 1.8)])
def test_a_picture_that_is_held_once_moves_no_player_far_from_the_end(held_s, back_s):
    source = Source()
    source.run(3.5)
    source.pause(held_s)
    source.run(0.5)
    text = playlist.media(source.sink)
    longest_s = max(duration_s for parts in parts_by_segment(text) for duration_s, _, _ in parts)
    assert held_s < longest_s <= value(text, "PART-TARGET")
    assert 3 * PART_S <= value(text, "PART-HOLD-BACK") <= back_s
    source.run(9.0)
    text = playlist.media(source.sink)
    assert (value(text, "PART-TARGET"), value(text, "PART-HOLD-BACK")) == (PART_S, 3 * PART_S)


def test_a_segment_is_its_parts_one_after_the_other_and_they_decode():
    source = Source(sound=True)
    source.run(6.5)
    media, text = source.media(), playlist.media(source.sink)
    for entry, parts in zip(media.entries[-2:], parts_by_segment(text)[-3:-1], strict=True):
        data = [source.segments.find(name) for _, name, _ in parts]
        assert None not in data
        assert b"".join(data) == source.segments.find(entry.name)
    assert len(source.play()) == 160


def test_only_the_last_three_target_durations_are_told_in_parts():
    source = Source(segments=10)
    source.run(21.0)
    *whole, growing = parts_by_segment(playlist.media(source.sink))
    assert len(whole) == 10
    assert growing
    told = [bool(parts) for parts in whole]
    assert told == sorted(told)
    assert 3 <= sum(told) <= 4


def test_a_delta_update_leaves_out_what_is_older_than_six_target_durations():
    source = Source(segments=12)
    source.run(25.0)
    full, delta = playlist.media(source.sink), playlist.media(source.sink, delta=True)
    assert value(full, "CAN-SKIP-UNTIL") >= 6 * 2
    skipped = int(re.search(r"#EXT-X-SKIP:SKIPPED-SEGMENTS=(\d+)\n", delta)[1])
    names = [line for line in full.splitlines() if line and not line.startswith("#")]
    left = [line for line in delta.splitlines() if line and not line.startswith("#")]
    assert skipped > 2
    assert left == names[skipped:]
    assert len(delta) < len(full)

    young = Source(segments=4)
    young.run(9.0)
    assert "EXT-X-SKIP" not in playlist.media(young.sink, delta=True)


def test_the_hint_is_the_name_of_the_part_that_comes_next():
    source = Source()
    source.run(2.0)
    hints = []
    for _ in range(60):
        hints.append(HINT.search(playlist.media(source.sink))[1])
        source.run(0.16)
    names = [name for parts in parts_by_segment(playlist.media(source.sink)) for _, name, _ in parts]
    assert set(hints[-20:]) <= {*names, source.segments.next_part}
    source.sink.interrupted()
    assert "PRELOAD-HINT" not in playlist.media(source.sink), "what comes then follows a discontinuity"
    source.sink.ended()
    assert "PRELOAD-HINT" not in playlist.media(source.sink)


async def ask(served: Gateway, **query: int) -> str:
    words = "&".join(f"_HLS_{name}={number}" for name, number in query.items())
    answer = await served.http.get(f"/hls/demo/media.m3u8?{words}", timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.text


def end_of(text: str) -> tuple[int, int]:
    """The sequence number of the segment that grows, and how many parts it has."""
    listed = [line for line in text.splitlines() if line and not line.startswith("#")]
    sequence = int(re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", text)[1])
    return sequence + len(listed), len(parts_by_segment(text)[-1])


async def test_a_reload_waits_for_the_part_it_asks_for():
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        msn, part = end_of(await ask(served))
        ends = []
        for _ in range(8):
            text = await ask(served, msn=msn, part=part)
            ends.append((msn, part))
            assert end_of(text) > (msn, part), "the part is there, or the segment is whole without it"
            msn, part = end_of(text)
        assert all(one < other for one, other in pairwise(ends))
        assert len({msn for msn, _ in ends}) > 1
        whole = end_of(await ask(served, msn=msn))
        assert whole >= (msn + 1, 0), "without a part, the segment is waited for"


async def test_what_is_too_far_ahead_is_refused_and_what_never_comes_is_given_up(monkeypatch):
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        msn, _ = end_of(await ask(served))
        answer = await served.http.get(f"/hls/demo/media.m3u8?_HLS_msn={msn + 5}")
        assert answer.status_code == 400
        assert f"_HLS_msn={msn + 5}: must be at most" in answer.json()["detail"]
        answer = await served.http.get("/hls/demo/media.m3u8?_HLS_part=1")
        assert answer.status_code == 400
        answer = await served.http.get("/hls/demo/media.m3u8?_HLS_msn=-1")
        assert answer.status_code == 422
        monkeypatch.setattr("server.gateway.routes.hls._BLOCKED_TARGETS", 0.01)
        msn, _ = end_of(await ask(served))
        answer = await served.http.get(f"/hls/demo/media.m3u8?_HLS_msn={msn + 1}")
        assert (answer.status_code, answer.json()["detail"]) == (503, f"segment {msn + 1} hasn't come")


async def test_the_hinted_part_is_waited_for():
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        for _ in range(4):
            hint = HINT.search(await ask(served))[1]
            answer = await served.http.get(f"/hls/demo/{hint}", timeout=20)
            assert (answer.status_code, answer.content[4:8]) == (200, b"moof")
        assert (await served.http.get("/hls/demo/part-0-99999.m4s")).status_code == 404


async def test_a_stream_that_ends_lets_go_of_who_waits():
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        msn, part = end_of(await ask(served))
        waiting = asyncio.create_task(ask(served, msn=msn + 1, part=part))
        served.worker.hang()
        served.worker.say(JobImpossible(reason="the source has ended"))
        assert "#EXT-X-ENDLIST" in await waiting


async def test_what_is_long_there_is_answered_at_once_and_a_part_beyond_a_segment_is_the_next_ones_first():
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        text = await ask(served)
        msn, _ = end_of(text)
        oldest = int(re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", text)[1])
        for query in ({"msn": oldest}, {"msn": max(0, oldest - 50), "part": 2}):
            before = end_of(await ask(served))
            assert end_of(await ask(served, **query))[0] <= before[0] + 1, "a segment is a second"
        beyond = await ask(served, msn=msn - 1, part=1000)
        assert end_of(beyond) >= (msn, 1), "RFC 8216bis, 6.2.5.2"


async def test_playlists_are_compressed_for_who_can_read_it_and_caches_keep_only_what_stays():
    async with gateway(hls={"segment_s": 1.0}, server={"cors_origins": ["*"]}) as served:
        await served.in_state("running")
        await ask(served)
        playlists = ("index.m3u8", "media.m3u8")
        for name in playlists:
            for accepted, packed in (("gzip, br", True), ("identity", False), ("gzip;q=0", False)):
                headers = {"Accept-Encoding": accepted, "Origin": "https://other.example"}
                answer = await served.http.get(f"/hls/demo/{name}", headers=headers, timeout=20)
                assert answer.text.startswith("#EXTM3U\n")
                assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
                assert (answer.headers.get("Content-Encoding") == "gzip") == packed
                assert "Accept-Encoding" in answer.headers["Vary"]
                assert answer.headers["Cache-Control"] == "no-cache"
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
        missing = await served.http.get("/hls/demo/part-0-99999.m4s")
        assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "no-store"), "it may come yet"


def test_a_part_that_begins_with_a_keyframe_says_so_wherever_it_stands():
    source = Source()
    source.run(5.0, extra_keyframe_every=7)
    parts = [part for row in source.segments.listed for part in row.parts]
    said = {name for row in parts_by_segment(playlist.media(source.sink)) for _, name, free in row if free}
    named = {part.name for part in parts if part.independent}
    assert said >= named
    assert len(named) >= len(source.segments.listed)
