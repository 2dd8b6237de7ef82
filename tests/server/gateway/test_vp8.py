"""Viewers whose offer has no H.264: VP8 for as long as one of them is there, beside everyone else's H.264."""

import pytest
from aiortc import RTCRtpReceiver
from aiortc.codecs.vpx import VpxPayloadDescriptor
from msgspec.structs import replace

from server.gateway.webrtc.rtp import vp8_frame
from server.wire.messages import Watch
from tests.server.gateway.hls_media import video
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, until
from tests.server.gateway.scripted_worker import ScriptedPlacement


def vp8_viewer(served: Gateway, **options) -> Viewer:
    viewer = Viewer(served, **options)
    for transceiver in viewer.pc.getTransceivers():
        if transceiver.kind == "video":
            codecs = RTCRtpReceiver.getCapabilities("video").codecs
            transceiver.setCodecPreferences([c for c in codecs if c.mimeType in ("video/VP8", "video/rtx")])
    return viewer


def told(placement: ScriptedPlacement) -> tuple[str, ...]:
    return [m.renditions for m in placement.workers[-1].received if isinstance(m, Watch)][-1]


async def test_a_viewer_without_h264_is_sent_vp8_while_it_is_there():
    async with gateway() as served:
        await served.in_state("running")
        async with Viewer(served) as h264:
            await h264.sees(3)
            assert told(served.placement) == ("upscaled",), "nobody needs VP8"
            async with vp8_viewer(served) as one, vp8_viewer(served, rendition="90p") as other:
                assert "VP8/90000" in one.response.text
                assert "H264" not in one.response.text
                [*_, whole] = await one.sees(10)
                [*_, smaller] = await other.sees(10)
                assert (whole.width, whole.height) == (160, 120)
                assert (smaller.width, smaller.height) == (120, 90)
                assert whole.to_ndarray(format="gray").std() > 20
                assert set(told(served.placement)) == {"upscaled", "upscaled-vp8", "90p-vp8"}
                session = other.location.rsplit("/", 1)[1]
                viewer = (await served.http.get(f"/api/streams/demo/viewers/{session}")).json()
                assert viewer["rendition"] == "90p", "whichever codec it is in"
                await served.http.get("/hls/demo/index.m3u8", timeout=30)
                listed = (await served.http.get("/hls/demo/index.m3u8", timeout=30)).text
                assert "vp8" not in listed.lower()
                renditions = [form["name"] for form in (await served.stream())["renditions"]]
                assert renditions == ["upscaled", "90p", "source"]
                refused = await served.http.post(
                    "/whep/demo", params={"rendition": "90p-vp8"}, content="v=0",
                    headers={"Content-Type": "application/sdp"},
                )  # fmt: skip
                assert refused.status_code in (404, 422), "VP8 is the offer's to ask for"
            for viewer in (one, other):
                await served.http.delete(viewer.location)
            await until(lambda: told(served.placement) == ("upscaled",), "nobody needs it any more")
            await h264.sees(len(h264.frames[0]) + 3)


async def test_a_worker_that_dies_is_replaced_under_a_vp8_viewer():
    async with gateway() as served:
        await served.in_state("running")
        async with vp8_viewer(served) as viewer:
            seen = len(await viewer.sees(5))
            served.worker.die()
            await until(lambda: len(served.placement.workers) == 2, "another worker starts")
            await viewer.sees(seen + 15)
            assert set(told(served.placement)) == {"upscaled", "upscaled-vp8"}


@pytest.mark.parametrize("size", [1, 1296, 1297, 5000, 100_003])
def test_frames_are_cut_as_rfc_7741_says(size):
    payload = bytes(at % 251 for at in range(size))
    packet = replace(video(90_000, payload, keyframe=True), rendition="upscaled-vp8")
    frame = vp8_frame(packet, 0x7FFF + 0x12)
    parsed = [VpxPayloadDescriptor.parse(one) for one in frame.payloads]
    assert b"".join(rest for _, rest in parsed) == payload
    assert [d.partition_start for d, _ in parsed] == [1] + [0] * (len(parsed) - 1)
    assert {(d.partition_id, d.picture_id) for d, _ in parsed} == {(0, 0x11)}
    sizes = {len(one) for one in frame.payloads[:-1]}
    assert len(sizes) <= 1, "all of one size but the last, so that one call sends them"
    assert max(map(len, frame.payloads)) <= 1300
