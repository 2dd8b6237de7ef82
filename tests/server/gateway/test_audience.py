"""Streams that nobody watches: they are idle, and the first viewer wakes them."""

import pytest

from server.gateway.figures import players
from server.gateway.streams import audience
from server.wire.messages import Watch
from tests.server.gateway.scripted_gateway import Viewer, gateway, until
from tests.server.gateway.scripted_worker import ScriptedPlacement

WATCHED = {"upscale_when": "watched"}


def told(placement: ScriptedPlacement) -> list[tuple[str, ...]]:
    return [m.renditions for m in placement.workers[-1].received if isinstance(m, Watch)]


async def test_a_viewer_wakes_a_stream_and_leaves_it_idle():
    async with gateway(defaults=WATCHED) as served:
        idle = await served.in_state("idle")
        assert (idle["reason"], idle["output"]["width"]) == ("nobody watches", 160)
        assert told(served.placement) == [()]
        assert (await served.http.get("/readyz")).status_code == 200
        async with Viewer(served) as viewer:
            await viewer.sees(5)
            assert told(served.placement)[-1] == ("upscaled",)
            running = await served.in_state("running")
            assert running["reason"] == ""
            metrics = await served.metrics()
            assert metrics['livesr_stream_state{state="running",stream="demo"}'] == 1
        await served.http.delete(viewer.location)
        await served.in_state("idle")
        assert told(served.placement)[-1] == ()
        metrics = await served.metrics()
        assert metrics['livesr_stream_state{state="idle",stream="demo"}'] == 1
        frames = (await served.stream())["frames"]["total"]
        assert (await served.stream())["frames"]["total"] == frames, "what nobody sees is not published"


async def test_a_viewer_who_comes_back_at_once_never_left():
    """A page that is loaded anew leaves by one session and comes by the next."""
    async with gateway(defaults=WATCHED) as served:
        async with Viewer(served) as viewer:
            await viewer.sees(5)
        await served.http.delete(viewer.location)
        assert (await served.stream())["viewers"]["whep"] == 0
        async with Viewer(served) as viewer:
            await viewer.sees(5)
            assert told(served.placement) == [(), ("upscaled",)]
            assert (await served.stream())["state"] == "running"


async def test_a_player_wakes_a_stream_and_starts_with_the_present(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(players, "REMEMBERED_S", 3.0)
    monkeypatch.setattr(audience, "_LATER_S", 3.1)
    async with gateway(defaults=WATCHED, hls={"segment_s": 1.0}) as served:
        await served.in_state("idle")
        first = (await served.http.get("/hls/demo/index.m3u8", timeout=30)).text
        assert "media.m3u8" in first
        before = (await served.http.get("/hls/demo/media.m3u8")).text.split()
        await served.in_state("idle")  # the player has not come back
        after = (await served.http.get("/hls/demo/media.m3u8", timeout=30)).text.split()
        old, new = ({line for line in text if line.startswith("seg-")} for text in (before, after))
        assert old
        assert new
        assert not old & new

        def sequence(lines: list[str]) -> int:
            return int(next(line.partition(":")[2] for line in lines if "MEDIA-SEQUENCE" in line))

        assert sequence(after) >= sequence(before) + len(old)


async def test_a_closed_source_is_idle_not_starting():
    placement = ScriptedPlacement()
    placement.script.live = False
    async with gateway(placement, defaults=WATCHED | {"source_when": "watched"}) as served:
        await served.in_state("idle")
        assert (await served.http.get("/readyz")).status_code == 200


async def test_always_needs_no_viewer():
    async with gateway(defaults={"upscale_when": "always"}) as served:
        await served.in_state("running")
        assert told(served.placement) == [("upscaled",)]


async def test_the_next_worker_hears_what_is_watched():
    async with gateway(defaults=WATCHED) as served, Viewer(served, videos=2) as viewer:
        await viewer.sees(3, video=1)
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        await viewer.sees(len(viewer.frames[1]) + 3, video=1)
        assert told(served.placement)[0] == ("upscaled", "source")
