"""What a viewer is told of its own network, and why it gets the picture it gets."""

import time

from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, until


async def shown(served: Gateway, viewer: Viewer) -> dict:
    session = viewer.location.rpartition("/")[2]
    answer = await served.http.get(f"/api/streams/demo/viewers/{session}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_viewer_is_told_its_rendition_and_why():
    async with gateway(streams=("demo", "other")) as served:
        async with Viewer(served) as viewer:
            await viewer.sees(5)
            view = await shown(served, viewer)
            assert (view["rendition"], view["reason"], view["loss"]) == ("upscaled", "", 0)
            assert view["delivered_bps"] is view["queue_s"] is None, "aiortc's feedback doesn't say"

            async def measured() -> bool:
                view = await shown(served, viewer)
                return view["rtt_s"] is not None and view["sent_bps"] > 0

            await until(measured, "its round trip is known")
            session = viewer.location.rpartition("/")[2]
            peer = served.app._sessions.get("demo", session)
            for ago_s in (2, 1, 0):
                peer.path.reported_loss(1.0, time.monotonic() - ago_s)
            peer._look()
            view = await shown(served, viewer)
            assert (view["rendition"], view["reason"]) == ("90p", "88% is lost")

            async def observed() -> bool:
                metrics = await served.metrics()
                smaller = metrics.get('livesr_rendition_viewers{rendition="90p",stream="demo"}')
                trips = metrics.get('livesr_viewer_round_trip_seconds_count{stream="demo"}', 0)
                return smaller == 1 and trips > 0

            await until(observed, "the metrics know its network")
            assert 'livesr_viewer_loss_ratio_count{stream="other"}' not in await served.metrics()
            answer = await served.http.get(f"/api/streams/other/viewers/{session}")
            assert answer.status_code == 404, "it is of one stream"

        async def gone() -> str:
            answer = await served.http.get(f"/api/streams/demo/viewers/{session}")
            return answer.json()["detail"] if answer.status_code == 404 else ""

        assert await until(gone, "its session has ended") == "stream 'demo' has no such session"
