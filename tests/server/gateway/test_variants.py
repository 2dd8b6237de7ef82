"""HLS variants: cut where the upscaled one is, numbered as it, and made only while somebody plays them."""

import asyncio
import re

import httpx
import pytest
from msgspec.structs import replace

from server.gateway.figures import players
from server.gateway.hls import playlist
from server.gateway.streams import audience
from tests.server.gateway.hls_media import Media, Source
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement

REPORT = re.compile(r'#EXT-X-RENDITION-REPORT:URI="([^"]+)",LAST-MSN=(\d+),LAST-PART=(\d+)')


def cuts(media: Media) -> dict[int, tuple]:
    """What has to be the same in every variant, by media sequence number."""
    entries = enumerate(media.entries, media.sequence)
    return {n: (entry.starts, entry.duration_s, entry.discontinuity) for n, entry in entries}


def test_a_variant_that_begins_has_a_segment_soon_and_the_same_cuts_from_then_on():
    source = Source(sound=True)
    source.run(7.0)
    source.watch("upscaled", "90p")
    source.run(0.6)
    assert len(source.media("90p").entries) == 1, "no player waits for two seconds"
    source.run(3.0)
    source.watch("upscaled", "90p", "source")
    source.run(3.1)
    whole = source.media()
    for name, size in (("90p", (120, 90)), ("source", (80, 60))):
        variant = source.media(name)
        assert len(variant.entries) >= 2
        assert cuts(variant).items() <= cuts(whole).items()
        assert variant.discontinuity_sequence == whole.discontinuity_sequence
        frames = source.play(name)
        assert {(frame.width, frame.height) for frame in frames} == {size}
        times = [frame.time for frame in source.play()]
        assert [frame.time for frame in frames] == pytest.approx(times[-len(frames) :])


def test_a_new_worker_and_a_new_size_are_the_same_discontinuity_in_all():
    source = Source()
    source.watch("upscaled", "90p")
    source.run(4.5)
    source.sink.interrupted()
    source.pause(0.7)
    source.run(2.5)
    assert cuts(source.media("90p")) == cuts(source.media())
    assert sum(discontinuity for _, _, discontinuity in cuts(source.media()).values()) == 1
    source.run(8.0)
    assert source.media("90p").discontinuity_sequence == source.media().discontinuity_sequence


def test_a_variant_that_lacks_pictures_begins_anew():
    """Better than a segment under a number that means another one."""
    source = Source()
    source.watch("upscaled", "90p")
    source.run(4.5)
    before = source.media("90p")
    source.renditions = ("upscaled",)  # nothing comes of it
    source.run(2.5)
    source.renditions = ("upscaled", "90p")
    source.smaller["90p"].force = True
    source.run(4.5)
    after = source.media("90p")
    assert after.sequence > max(before.numbered())
    assert cuts(after).items() <= cuts(source.media()).items()


def test_a_variant_that_is_no_more_ends_and_may_come_back():
    source = Source()
    source.watch("upscaled", "90p")
    source.run(4.5)
    before, variant = source.media("90p"), source.sink.variant("90p")
    source.sink.opened(replace(source.opened, renditions=source.opened.renditions[:1]))
    source.run(2.5)  # some pictures of it are on their way
    assert variant.ended
    assert "90p" not in playlist.multivariant(source.sink)
    source.sink.opened(source.opened)
    source.sink.variant("90p")  # is asked for
    source.smaller["90p"].force = source.encoder.force = True
    source.run(2.5)
    after = source.media("90p")
    assert after.sequence > max(before.numbered())
    assert cuts(after).items() <= cuts(source.media()).items()


def test_reports_tell_how_far_the_other_variants_are():
    source = Source()
    source.watch("upscaled", "90p")
    source.run(5.0)
    whole = source.sink.segments
    last = (str(whole.media_sequence + len(whole.listed)), str(len(whole.growing.parts) - 1))
    text = playlist.media(source.sink)
    assert REPORT.findall(text) == [("90p.m3u8", *last), ("source.m3u8", *last)], "which would be as far"
    assert [uri for uri, _, _ in REPORT.findall(playlist.media(source.sink, "90p"))] == [
        "media.m3u8",
        "source.m3u8",
    ]


async def variants(served: Gateway) -> list[tuple[str, str, int]]:
    text = (await served.http.get("/hls/demo/index.m3u8", timeout=30)).text
    lines = re.findall(r"#EXT-X-STREAM-INF:BANDWIDTH=(\d+).*RESOLUTION=(\w+).*\n(.+)\n", text)
    return [(uri, size, int(bps)) for bps, size, uri in lines]


async def test_a_variant_is_encoded_while_a_player_fetches_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audience, "REMEMBERED_S", 3.0)
    monkeypatch.setattr(players, "REMEMBERED_S", 3.0)
    monkeypatch.setattr(audience, "_LATER_S", 3.1)
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        told = await variants(served)
        sizes = [("media.m3u8", "160x120"), ("90p.m3u8", "120x90"), ("source.m3u8", "80x60")]
        assert [(uri, size) for uri, size, _ in told] == sizes
        assert told[0][2] >= max(bps for _, _, bps in told[1:]), "which is the smaller one"
        assert served.worker.watched == ("upscaled",)

        answer = await served.http.get("/hls/demo/90p.m3u8", timeout=30)
        assert answer.status_code == 200, answer.text
        assert served.worker.watched == ("upscaled", "90p")
        variant = Media.parse(answer.text)
        whole = Media.parse((await served.http.get("/hls/demo/media.m3u8")).text)
        assert cuts(variant).items() <= cuts(whole).items()
        data = await served.http.get(f"/hls/demo/{variant.entries[0].name}")
        assert data.content[4:8] == b"moof"

        missing: httpx.Response = await served.http.get("/hls/demo/540p.m3u8")
        assert missing.status_code == 404
        assert "the stream has upscaled, 90p, source" in missing.json()["detail"]
        await until(lambda: served.worker.watched == ("upscaled",), "the player has not come back")
        again = Media.parse((await served.http.get("/hls/demo/90p.m3u8", timeout=30)).text)
        assert again.sequence > max(variant.numbered()), "it starts with what is then"


async def test_a_change_of_the_renditions_is_told_before_the_next_worker_has_opened():
    async with gateway(ScriptedPlacement(Script(live=False)), streams=()) as served:
        body = {"id": "mine", "source": "synthetic:", "upscale_when": "watched"}
        assert (await served.http.post("/api/streams", json=body)).status_code == 201
        served.worker.say(opened())

        async def is_open() -> dict:
            return (await served.stream("mine"))["output"]

        await until(is_open, "the source is open")
        changed = await served.http.patch("/api/streams/mine", json={"renditions": ["upscaled", "540p"]})
        assert (changed.status_code, changed.json()["lossless"]) == (200, False)
        gone = await served.http.get("/hls/mine/90p.m3u8")
        assert (gone.status_code, "the stream has upscaled, 540p" in gone.json()["detail"]) == (404, True)

        waiting = asyncio.create_task(served.http.get("/hls/mine/540p.m3u8", timeout=30))
        await until(lambda: "540p" in served.worker.watched, "a player waits for what is to come")
        served.worker.say(replace(opened(), renditions=opened().renditions[:1]))  # the source is too small
        answer = await waiting
        assert (answer.status_code, answer.json()["detail"]) == (
            404,
            "no rendition '540p'; the stream has upscaled",
        )


async def test_a_player_of_a_variant_that_is_no_more_is_told_which_there_are():
    async with gateway(hls={"segment_s": 1.0}) as served:
        await served.in_state("running")
        text = (await served.http.get("/hls/demo/90p.m3u8", timeout=30)).text
        served.worker.hang()
        following = max(Media.parse(text).numbered()) + 2

        async def requests() -> float:
            return (await served.metrics())['livesr_hls_requests_total{stream="demo"}']

        before = await requests()
        asked = served.http.get("/hls/demo/90p.m3u8", params={"_HLS_msn": following}, timeout=30)
        waiting = asyncio.create_task(asked)

        async def waits() -> bool:
            return await requests() > before

        await until(waits, "it waits for the next segment")
        served.worker.say(replace(opened(), renditions=opened().renditions[:1]))
        answer = await waiting
        assert (answer.status_code, "the stream has upscaled" in answer.text) == (404, True)
