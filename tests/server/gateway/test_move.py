"""A stream goes from one real worker to another: its viewers get every frame, once."""

import asyncio
import itertools
from functools import partial

import av
import pytest

from server.gateway.placement.local import LocalPlacement
from server.wire.messages import Opened, VideoPacket
from server.worker.ingest.synthetic import read_frame_number
from tests.server.gateway.scripted_gateway import Gateway, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.node.hosts import AheadClock, AheadPlacement, Hosts, host_here

SMALL = {"id": "demo", "source": "synthetic:?size=160x120&fps=8"}
OPTIONS = {"preset": "ultrafast", "lanes": 1, "renditions": ["upscaled", "source"], "engine_patience_s": 60}


class Seen:
    """What the gateway gives to viewers, decoded, as it gives it."""

    def __init__(self, served) -> None:
        self.numbers: list[int] = []
        self.widths: set[int] = set()
        self.begun = False
        self.opened = 0
        stream = served.app._streams.get("demo")
        decoder = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1
        give, tell = stream.outputs.video, stream.outputs.opened

        def video(packet: VideoPacket) -> None:
            give(packet)
            self.begun |= packet.keyframe
            if packet.rendition != "upscaled" or packet.slate or not self.begun:
                return
            for frame in decoder.decode(av.Packet(packet.payload)):
                number = read_frame_number(frame.to_ndarray(format="gray"), scale=frame.width // 160)
                self.widths.add(frame.width)
                assert number is not None
                self.numbers.append(number)

        def opened(message: Opened) -> None:
            self.opened += 1
            tell(message)

        stream.outputs.video, stream.outputs.opened = video, opened

    @property
    def gaps(self) -> list[tuple[int, int]]:
        return [(a, b) for a, b in itertools.pairwise(self.numbers) if b != a + 1]


async def test_a_moved_or_changed_stream_loses_no_frame_and_shows_none_twice():
    """The change is of its model, for one of another scale."""
    async with gateway(LocalPlacement(standby=1), streams=(), defaults=OPTIONS) as served:
        assert (await served.http.post("/api/streams", json=SMALL)).status_code == 201
        await served.in_state("running")
        seen = Seen(served)
        await until(lambda: len(seen.numbers) > 8, "frames")
        first = (await served.stream())["worker"]["pid"]
        change = {"model": "awsrn-live-large-x4"}
        for send in (
            partial(served.http.post, "/api/streams/demo/move"),
            partial(served.http.patch, "/api/streams/demo", json=change),
        ):
            answer = await send(timeout=90)
            assert answer.status_code == 200, answer.text
            assert answer.json()["lossless"]
            count = len(seen.numbers)
            await until(lambda c=count: len(seen.numbers) > c + 16, "frames of the next worker")
        assert seen.widths == {320, 640}
        dropped = (await served.stream())["frames"]["dropped"]
        lost = sum(b - a - 1 for a, b in seen.gaps)
        assert all(b > a for a, b in seen.gaps), "none is shown twice"
        assert lost <= sum(count for why, count in dropped.items() if why.endswith("/overload")), seen.gaps

        async def told() -> int | None:
            return (await served.stream())["worker"]["pid"]

        assert await until(told, "a heartbeat") != first
        stream = await served.stream()
        assert (stream["state"], stream["worker"]["restarts"]) == ("running", 0)


async def test_from_host_to_host(monkeypatch, tmp_path):
    """And what is on the way to a worker that only goes is not waited for."""
    one, two = AheadPlacement(AheadClock(monkeypatch, 99.0)), AheadPlacement(AheadClock(monkeypatch, 99.0))
    async with host_here(one, tmp_path, "one") as here, host_here(two, tmp_path, "two") as there:
        placement = Hosts()
        placement.hosts = [here, there]
        async with gateway(placement) as served:
            await served.in_state("running")
            placement.hosts.reverse()
            answer = await served.http.post("/api/streams/demo/move", timeout=30)
            assert answer.json()["lossless"]
            assert answer.json()["stream"]["worker"]["node"] == "two"
            await until(lambda: any(type(m).__name__ == "Stop" for m in one.workers[0].received), "it ends")
            assert two.workers[0].job.video_after is not None


async def begin_move(served: Gateway, script: Script, placement: ScriptedPlacement) -> asyncio.Task:
    """To a worker that says nothing."""
    script.live = False
    moving = asyncio.create_task(served.http.post("/api/streams/demo/move", timeout=30))
    await until(lambda: len(placement.workers) == 2, "another worker")
    return moving


async def test_a_worker_that_cannot_take_over_leaves_the_stream_as_it_was():
    script = Script()
    placement = ScriptedPlacement(script)
    async with gateway(placement) as served:
        await served.in_state("running")
        moving = await begin_move(served, script, placement)
        placement.workers[1].die()
        answer = await moving
        assert answer.status_code == 409
        assert "goes on as it was: the next worker has ended" in answer.json()["detail"]
        frames = (await served.stream())["frames"]["total"]

        async def more() -> bool:
            stream = await served.stream()
            return stream["frames"]["total"] > frames and stream["state"] == "running"

        await until(more, "the present worker goes on")
        script.refuse = "every GPU is full"
        answer = await served.http.post("/api/streams/demo/move")
        assert answer.status_code == 409
        assert "no worker could be started: every GPU is full" in answer.json()["detail"]


async def test_a_worker_that_dies_meanwhile_is_replaced_as_ever():
    script = Script()
    placement = ScriptedPlacement(script)
    async with gateway(placement) as served:
        await served.in_state("running")
        moving = await begin_move(served, script, placement)
        script.live = True
        placement.workers[0].die()
        answer = await moving
        assert answer.status_code == 409
        await until(lambda: len(placement.workers) == 3, "a third worker")
        await served.in_state("running")
        assert (await served.stream())["worker"]["restarts"] == 1


@pytest.mark.parametrize(
    ("source", "upscale_when", "state"),
    [
        ("whip:", "always", "running"),
        ("udp://127.0.0.1:15999", "always", "running"),
        ("synthetic:", "watched", "idle"),
    ],
)
async def test_what_only_one_worker_can_have_or_nobody_watches_starts_anew(
    source: str, upscale_when: str, state: str
):
    placement = ScriptedPlacement()
    async with gateway(placement, source=source, defaults={"upscale_when": upscale_when}) as served:
        await served.in_state(state)
        answer = await served.http.post("/api/streams/demo/move")
        assert answer.json()["lossless"] is False
        await until(lambda: len(placement.workers) == 2, "another worker")
        assert placement.workers[0].received[-1].__class__.__name__ == "Stop"
        assert (await served.http.post("/api/streams/nobody/move")).status_code == 404
