"""WebRTC viewers of a real gateway: aiortc over loopback, workers scripted."""

import itertools

from tests.server.gateway import Gateway, ScriptedPlacement, Viewer, gateway, loopback, until  # noqa: F401


async def test_a_viewer_sees_the_upscaled_picture_and_hears_sound():
    async with gateway() as served:
        await served.in_state("running")
        async with Viewer(served) as viewer:
            frames = await viewer.sees(30)
            assert (frames[0].width, frames[0].height) == (160, 120)
            times = [frame.time for frame in frames]
            assert all(0 < b - a < 0.2 for a, b in itertools.pairwise(times))
            await until(lambda: len(viewer.sound) > 20, "sound")
            stream = await served.stream()
            assert stream["viewers"]["whep"] == 1
            assert stream["latency_s"]["p50"] > 0.02


async def test_a_killed_worker_is_replaced_and_the_viewer_goes_on():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(10)
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        seen = len(viewer.frames[0])
        await viewer.sees(seen + 20)
        assert viewer.pc.connectionState == "connected"
        assert (await served.stream())["worker"]["restarts"] == 1
