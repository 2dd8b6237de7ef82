"""What state a stream is in, and what the next worker is told of the last."""

import time

from msgspec.structs import replace

from server.wire.messages import (
    AudioPacket,
    Dropped,
    JobImpossible,
    PictureMissing,
    Reconnecting,
)
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement


def quiet(*first) -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False, first=first))


async def test_losing_the_source_shows_in_the_state_and_ends_with_a_picture():
    lost = Reconnecting(reason="rtsp://u:p@h/1: refused", retry_in_s=1.0)
    async with gateway() as served:
        await served.in_state("running")
        served.worker.hang()
        served.worker.say(lost)
        stream = await served.in_state("reconnecting")
        assert stream["reason"] == "rtsp://***@h/1: refused; trying again in 1.0 s"
        assert stream["source_reconnects"] == 1
        served.worker.die()
        assert (await served.in_state("running"))["reason"] == ""


async def test_frames_on_the_way_do_not_bring_a_lost_source_back():
    async with gateway() as served:
        await served.in_state("running")
        served.worker.hang()
        served.worker.say(Reconnecting(reason="refused", retry_in_s=1.0, opening=1))
        await served.in_state("reconnecting")
        seen = (await served.stream())["frames"]["total"]
        late = served.worker._video("upscaled", int(time.monotonic() * 90_000))
        for _ in range(3):
            served.worker.say(late)

        async def shown() -> bool:
            return (await served.stream())["frames"]["total"] == seen + 3

        await until(shown, "the late frames")
        assert (await served.stream())["state"] == "reconnecting"
        assert (await served.metrics())['livesr_super_resolution{stream="demo"}'] == 0
        served.worker.say(replace(late, opening=2))
        await served.in_state("running")


async def test_a_slate_is_no_frame_and_brings_nothing_back():
    async with gateway() as served:
        await served.in_state("running")
        served.worker.hang()
        served.worker.say(PictureMissing(reason="no picture for 3 s, while its sound goes on"))
        assert (await served.in_state("reconnecting"))["reason"].startswith("no picture for 3 s")
        seen = (await served.stream())["frames"]["total"]
        slate = replace(served.worker._video("upscaled", int(time.monotonic() * 90_000)), slate=True)
        for opening in (1, 2, 3):
            served.worker.say(replace(slate, opening=opening))
        served.worker.say(Dropped(stage="encode", reason="overload", count=7))

        async def heard() -> bool:
            return (await served.stream())["frames"]["dropped"].get("encode/overload") == 7

        await until(heard, "what was said after the slate")
        stream = await served.stream()
        assert (stream["state"], stream["frames"]["total"]) == ("reconnecting", seen)
        served.worker.say(replace(slate, slate=False))
        await served.in_state("running")


async def test_the_next_worker_knows_what_the_last_had_opened():
    async with gateway() as served:
        await served.in_state("running")
        assert served.worker.job.opened is None
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "the next worker")
        job = await until(lambda: served.worker.job, "its job")
        assert job.opened is not None
        assert job.opened.output.width > 0


async def test_the_next_worker_goes_on_above_the_timestamps_of_the_last():
    async with gateway() as served:
        await served.in_state("running")
        first = served.worker
        assert (first.job.video_after, first.job.sound_after) == (None, None)
        first.hang()
        ahead = int(time.monotonic() * 90_000) + 400_000
        first.say(first._video("upscaled", ahead))
        first.say(AudioPacket(codec="opus", pts=ahead, duration=960, payload=b"x"))
        first.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        assert (served.worker.job.video_after, served.worker.job.sound_after) == (ahead, ahead + 960)


async def test_a_quarantined_stream_says_why_until_it_is_released():
    async with gateway(streams=("demo", "other")) as served:
        await served.in_state("running")
        for number in range(2, 5):
            demos = [worker for worker in served.placement.workers if worker.job.stream == "demo"]
            demos[-1].die()
            if number < 4:
                await until(
                    lambda n=number: sum(w.job.stream == "demo" for w in served.placement.workers) == n,
                    "another worker",
                )
        stopped = await served.in_state("quarantined")
        assert "ended 3 workers within 60 s, the last so: the worker was ended" in stopped["reason"]
        assert (await served.metrics())['livesr_stream_state{state="quarantined",stream="demo"}'] == 1
        assert (await served.http.post("/api/streams/nobody/release")).status_code == 404
        released = (await served.http.post("/api/streams/demo/release")).json()
        assert (released["state"], released["reason"]) == ("starting", "released")
        assert (await served.in_state("running"))["reason"] == ""
        assert (await served.stream("other"))["worker"]["restarts"] == 0


async def test_a_failed_stream_says_why_and_leaves_the_others_alone():
    async with gateway(streams=("good", "bad")) as served:
        await until(lambda: len(served.placement.workers) == 2, "both workers")
        served.placement.workers[1].hang()
        served.placement.workers[1].say(JobImpossible(reason="clip.txt: no video in it"))
        assert (await served.in_state("failed", "bad"))["reason"] == "clip.txt: no video in it"
        await served.in_state("running", "good")
        assert (await served.metrics())['livesr_stream_state{state="failed",stream="bad"}'] == 1
        assert len(served.placement.workers) == 2


async def test_a_new_size_is_told():
    async with gateway(quiet(opened())) as served:
        served.worker.say(opened(320, 240))

        async def grown() -> bool:
            stream = await served.stream()
            return stream["output"] and stream["output"]["width"] == 320

        await until(grown, "the new size")
