"""WHIP of a real gateway: what aiortc publishes is what a worker decodes, whatever is lost on the way."""

import asyncio
import itertools
import re

import pytest
from aiortc.mediastreams import AudioStreamTrack

from loadtest.http import ServerError
from server.wire.messages import AwaitPublisher, PublishedData, PublisherGone
from tests.server.gateway.scripted_gateway import gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement
from tests.server.gateway.test_auth import bearer, tokens
from tests.server.gateway.test_ice import free_pair
from tests.server.gateway.test_negotiate import CHROMIUM_OFFER
from tests.server.gateway.test_whep import SDP
from tests.server.gateway.whip_camera import HEIGHT, WIDTH, publishing, reading

TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
OFFER = CHROMIUM_OFFER.replace("a=recvonly", f"a=sendonly\na=extmap:3 {TRANSPORT_CC}").replace(
    "a=rtpmap:96 VP8/90000", "a=rtpmap:96 VP8/90000\na=rtcp-fb:96 transport-cc\na=rtcp-fb:96 ccm fir"
)


def waiting(**tables):
    """A gateway whose stream waits for a publisher."""
    return gateway(ScriptedPlacement(Script(live=False)), source="whip:", **tables)


async def test_a_worker_decodes_what_is_published():
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        async with reading(served) as reader:
            async with publishing(served, AudioStreamTrack()):
                await until(lambda: len(reader.numbers) > 40, "pictures")
            await until(lambda: reader.ended, "it ends")
        assert reader.sizes == {(WIDTH, HEIGHT)}
        assert reader.numbers == list(range(reader.numbers[0], reader.numbers[0] + len(reader.numbers)))
        assert reader.sound > 20
        # Not until the next one comes: a frame lasts 50 ms.
        assert sorted(reader.held_s[-15:])[7] < 0.04
        assert "the publisher has gone" in reader.ended


async def test_what_is_lost_once_is_sent_again():
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        async with (
            reading(served) as reader,
            publishing(served, loses=lambda number, again: number % 7 == 3 and not again) as camera,
        ):
            await until(lambda: len(reader.numbers) > 60, "pictures")
            assert camera.asked <= 1, "only the one who begins asks for a key frame"
        assert reader.numbers == list(range(reader.numbers[0], reader.numbers[0] + len(reader.numbers)))


async def test_after_a_loss_for_good_no_picture_is_shown_before_a_key_frame():
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        loses = {"loses": lambda number, again: number == 30}
        async with reading(served) as reader, publishing(served, **loses) as camera:
            await until(lambda: reader.numbers and reader.numbers[-1] > 70, "pictures after the loss")
            assert camera.asked >= 1
        steps = [b - a for a, b in itertools.pairwise(reader.numbers)]
        assert len([step for step in steps if step != 1]) == 1, "one gap, and no damaged picture"
        assert 30 in range(*next((a, b) for a, b in itertools.pairwise(reader.numbers) if b - a > 1))
        dropped = 'livesr_frames_dropped_total{reason="before_keyframe",stage="decode",stream="demo"}'
        assert (await served.metrics())[dropped] > 0


async def test_a_worker_that_is_replaced_gets_a_key_frame_at_once():
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        first = served.worker
        first.say(AwaitPublisher(opening=1))
        async with publishing(served) as camera:
            await until(lambda: len(pieces(first)) > 10, "it is published")
            asked = camera.asked
            first.die()
            await until(lambda: len(served.placement.workers) == 2, "a second worker")
            served.worker.say(AwaitPublisher(opening=1))
            await until(lambda: pieces(served.worker), "it gets pictures")
            assert camera.asked == asked + 1
            assert pieces(served.worker)[0].kind == "start"
            assert not [m for m in first.received if isinstance(m, PublisherGone)]


async def test_sound_waits_for_the_first_picture():
    """Which libav would else take to be of the same moment."""
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        served.worker.say(AwaitPublisher(opening=1))
        async with publishing(served, AudioStreamTrack(), loses=lambda number, again: number < 15):
            await until(lambda: len(pieces(served.worker)) > 20, "it is published")
        media = [piece.data for piece in pieces(served.worker) if piece.data[1] in (0, 2)]
        assert media[0][1] == 0, "a picture, by its channel"
        assert any(data[1] == 2 for data in media)


def pieces(worker) -> list[PublishedData]:
    return [m for m in worker.received if isinstance(m, PublishedData) and m.data]


async def test_a_publisher_may_send_so_much():
    tables = {"limits": {"max_publisher_bps": 100_000}}
    async with waiting(**tables) as served, publishing(served, noise=60):
        await until(lambda: refused(served, "bad_publisher"), "some of it isn't read")


async def test_a_stranger_who_sends_too_much_at_once_ends_no_publication():
    port = await free_pair()
    webrtc = {"host_addresses": ["127.0.0.1"], "udp_ports": [port, port + 1]}
    async with waiting(webrtc=webrtc) as served:
        await until(lambda: served.placement.workers, "a worker")
        served.worker.say(AwaitPublisher(opening=1))
        async with publishing(served):
            await until(lambda: len(pieces(served.worker)) > 5, "it is published")
            stranger, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            for kind, at in itertools.product((b"\x80\x60", b"\x80\xc8"), (port, port + 1)):
                stranger.sendto(kind + bytes(1600), ("127.0.0.1", at))
            stranger.close()
            before = len(pieces(served.worker))
            await until(lambda: len(pieces(served.worker)) > before + 10, "it goes on", 10)


async def refused(served, reason: str) -> float:
    return (await served.metrics()).get(f'livesr_refused_total{{reason="{reason}"}}', 0)


async def test_there_is_one_publisher_at_a_time():
    async with waiting() as served:
        async with publishing(served):
            with pytest.raises(ServerError, match="409 somebody else publishes stream 'demo'"):
                async with publishing(served):
                    pass
        async with publishing(served):
            pass


async def test_another_publisher_takes_over_where_the_settings_say_so():
    async with waiting(defaults={"override_publisher": True}) as served:
        await until(lambda: served.placement.workers, "a worker")
        worker = served.worker
        worker.say(AwaitPublisher(opening=1))
        async with publishing(served):
            await until(lambda: pieces(worker), "it is published")
            async with publishing(served):
                gone = [m.reason for m in worker.received if isinstance(m, PublisherGone)]
                assert gone == ["another has come"]
                worker.say(AwaitPublisher(opening=2))
                await until(lambda: pieces(worker)[-1].opening == 2, "the other one is published")


async def test_only_a_stream_that_waits_for_one_takes_a_publisher():
    async with gateway(ScriptedPlacement(Script(live=False))) as served:
        with pytest.raises(ServerError, match=r"409 .* has a source of its own"):
            async with publishing(served):
                pass
        answer = await served.http.post("/whip/none", content="", headers=SDP)
        assert answer.status_code == 404


async def test_the_stream_ends_and_its_publisher_with_it():
    async with waiting() as served, publishing(served) as camera:
        assert (await served.http.delete("/api/streams/demo")).status_code == 204
        await until(lambda: camera.readyState == "ended", "the publisher is told")


@pytest.mark.parametrize(
    ("token", "status"), [("publisher", 400), ("other", 403), ("viewer", 403), ("wrong", 401), ("", 401)]
)
async def test_publishing_needs_its_scope(token, status):
    scopes = tokens(publisher=["publish:demo"], other=["publish:other"], viewer=["view:demo"])
    async with waiting(**scopes) as served:
        headers = SDP | (bearer(token) if token else {})
        assert (await served.http.post("/whip/demo", content="", headers=headers)).status_code == status
        if status != 400:
            assert (await served.http.delete("/whip/demo/x", headers=headers)).status_code == status


async def test_a_session_is_changed_and_ended_by_its_address():
    async with waiting() as served:
        answer = await served.http.post("/whip/demo", content=OFFER, headers=SDP)
        assert answer.status_code == 201
        assert "a=recvonly" in answer.text
        assert f"a=extmap:3 {TRANSPORT_CC}" in answer.text
        assert "a=rtcp-fb:96 transport-cc" in answer.text
        assert "fir" not in answer.text
        assert answer.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        at, fragment = answer.headers["Location"], {"Content-Type": "application/trickle-ice-sdpfrag"}
        candidate = "a=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\n"
        etag = answer.headers["ETag"]
        for headers, body, status in (
            ({"If-Match": etag}, candidate, 204),
            ({"If-Match": f'"a,b",W/"c" , {etag}'}, candidate, 204),
            ({"If-Match": "*"}, candidate, 204),
            ({"If-Match": '"other", "another"'}, candidate, 412),
            ({"If-Match": f"W/{etag}"}, candidate, 412),
            ({}, "a=ice-ufrag:other\r\n", 422),
        ):
            patched = await served.http.patch(at, content=body, headers=fragment | headers)
            assert patched.status_code == status, body
        assert (await served.http.delete(at)).status_code == 200
        assert (await served.http.delete(at)).status_code == 404
        without = re.sub("H264|VP8|VP9|AV1", "H263", OFFER)
        refusal = await served.http.post("/whip/demo", content=without, headers=SDP)
        assert (refusal.status_code, refusal.json()["detail"]) == (
            400,
            "the offer has no video m-line that sends one of H264, VP8, VP9, AV1",
        )
