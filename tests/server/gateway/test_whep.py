"""WebRTC viewers of a real gateway: aiortc over loopback, workers scripted."""

import itertools
import time

import aioice.ice
import httpx
import pytest
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtcpByePacket, RtcpSenderInfo, RtcpSrPacket
from aiortc.sdp import SessionDescription
from msgspec.structs import replace

from server.wire.messages import JobImpossible
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_media import opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def test_a_viewer_sees_the_upscaled_picture_and_hears_sound():
    async with gateway() as served, Viewer(served) as viewer:
        frames = await viewer.sees(30)
        assert (frames[0].width, frames[0].height) == (160, 120)
        assert all(0 < b.time - a.time < 0.2 for a, b in itertools.pairwise(frames))
        await until(lambda: len(viewer.sound) > 20, "sound")
        stream = await served.stream()
        assert stream["viewers"]["whep"] == 1
        assert stream["latency_s"]["p50"] > 0.02  # the scripted arrival is 20 ms before the sending


async def test_sender_reports_keep_sound_and_picture_together():
    """A picture that left half a second after the sound of its moment must be reported as of that moment."""
    placement = ScriptedPlacement(Script(video_delay_s=0.5))
    async with gateway(placement) as served, Viewer(served) as viewer:
        reports: dict[str, RtcpSenderInfo] = {}
        ages_s: dict[str, list[float]] = {"video": [], "audio": []}
        for receiver in viewer.pc.getReceivers():
            _listen(receiver, reports, ages_s[receiver.track.kind])
        await until(lambda: min(map(len, ages_s.values())) > 20, "packets after a report of each line")
        lag_s = min(ages_s["video"]) - min(ages_s["audio"])
        assert lag_s == pytest.approx(0.5, abs=0.1)


def _listen(receiver: RTCRtpReceiver, reports: dict[str, RtcpSenderInfo], ages_s: list[float]) -> None:
    """Collects how old each packet is on arrival, by the wall clock of its line's last sender report."""
    kind = receiver.track.kind
    clock_hz = 90_000 if kind == "video" else 48_000
    handle_rtp, handle_rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

    async def on_rtcp(packet) -> None:
        if isinstance(packet, RtcpSrPacket):
            reports[kind] = packet.sender_info
        await handle_rtcp(packet)

    async def on_rtp(packet, arrival_time_ms) -> None:
        if kind in reports:
            ticks = (packet.timestamp - reports[kind].rtp_timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
            sent_s = reports[kind].ntp_timestamp / (1 << 32) - 2_208_988_800 + ticks / clock_hz
            ages_s.append(time.time() - sent_s)
        await handle_rtp(packet, arrival_time_ms=arrival_time_ms)

    receiver._handle_rtp_packet, receiver._handle_rtcp_packet = on_rtp, on_rtcp


async def test_a_killed_worker_is_replaced_and_the_viewer_goes_on():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(10)
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        seen = len(viewer.frames[0])
        await viewer.sees(seen + 20)
        assert viewer.pc.connectionState == "connected"
        assert (await served.stream())["worker"]["restarts"] == 1


async def test_a_second_video_line_gets_the_sources_picture_and_only_while_somebody_watches():
    async with gateway() as served:
        await served.in_state("running")
        assert "source" not in served.worker.watched
        async with Viewer(served, videos=2) as viewer:
            frames = await viewer.sees(10, video=1)
            assert (frames[0].width, frames[0].height) == (80, 60)
            upscaled = await viewer.sees(10, video=0)
            assert upscaled[0].width == 160
            served.worker.die()
            await until(lambda: len(served.placement.workers) == 2, "a second worker")
            await until(lambda: "source" in served.worker.watched, "the new worker makes both")
            await viewer.sees(len(viewer.frames[1]) + 10, video=1)
        await until(lambda: "source" not in served.worker.watched, "it ends with its last viewer")


async def test_a_viewer_names_the_rendition_that_it_gets():
    async with gateway() as served:
        await served.in_state("running")
        async with Viewer(served, rendition="90p") as viewer:
            frames = await viewer.sees(10)
            assert (frames[0].width, frames[0].height) == (120, 90)
            renditions = (await served.stream())["renditions"]
            assert [(r["name"], r["width"], r["watched"]) for r in renditions] == [
                ("upscaled", 160, True),
                ("90p", 120, True),
                ("source", 80, False),
            ]
            offer = await viewer.offer()
        refused = await served.http.post("/whep/demo?rendition=540p", content=offer, headers=SDP)
        assert refused.status_code == 404
        assert "no rendition '540p'; the stream has upscaled, 90p, source" in refused.json()["detail"]


async def test_who_watches_a_rendition_that_is_no_more_is_sent_away():
    async with gateway() as served:
        await served.in_state("running")
        async with Viewer(served, rendition="90p") as viewer, Viewer(served) as other:
            await viewer.sees(3)
            smaller = opened()
            served.worker.say(replace(smaller, renditions=smaller.renditions[:1]))
            await until(lambda: viewer.pc.connectionState == "closed", "it hears that nothing follows")
            await other.sees(len(other.frames[0]) + 10)


async def test_both_renditions_of_a_moment_have_one_timestamp():
    async with gateway() as served, Viewer(served, videos=2, audio=False) as viewer:
        stamps: tuple[set[int], ...] = set(), set()
        for receiver, seen in zip(viewer.pc.getReceivers(), stamps, strict=True):
            _keep_timestamps(receiver, seen)
        await until(lambda: len(stamps[0] & stamps[1]) >= 10, "ten moments are found in both")


def _keep_timestamps(receiver: RTCRtpReceiver, seen: set[int]) -> None:
    handle = receiver._handle_rtp_packet

    async def on_rtp(packet, arrival_time_ms) -> None:
        seen.add(packet.timestamp)
        await handle(packet, arrival_time_ms=arrival_time_ms)

    receiver._handle_rtp_packet = on_rtp


async def test_keyframe_requests_of_many_viewers_are_thinned_out():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(5)
        receiver = viewer.pc.getReceivers()[0]
        ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
        before, asked_s = len(served.worker.keyframe_requests), time.monotonic()
        for _ in range(40):
            await receiver._send_rtcp_pli(ssrc)
        await until(lambda: len(served.worker.keyframe_requests) > before, "the request reaches the worker")
        await viewer.sees(len(viewer.frames[0]) + 25)
        elapsed_s = time.monotonic() - asked_s
        assert len(served.worker.keyframe_requests) - before <= 2 * elapsed_s + 1
        assert (await served.metrics())['livesr_keyframe_requests_total{stream="demo"}'] > 0


async def test_lost_packets_come_again_on_request():
    placement = ScriptedPlacement(Script(width=640, height=480))
    async with gateway(placement) as served, Viewer(served) as viewer:
        frames = await viewer.sees(5)
        receiver = viewer.pc.getReceivers()[0]
        handle = receiver._handle_rtp_packet
        retransmission = SessionDescription.parse(viewer.response.text).media[0].rtp.codecs[1].payloadType
        lost: list[int] = []
        found: list[int] = []

        async def lossy(packet, arrival_time_ms) -> None:
            if packet.payload_type == retransmission:
                found.append(int.from_bytes(packet.payload[:2], "big"))
            elif len(lost) < 5 and packet.sequence_number % 4 == 0:
                lost.append(packet.sequence_number)
                return
            await handle(packet, arrival_time_ms=arrival_time_ms)

        receiver._handle_rtp_packet = lossy
        await until(lambda: len(lost) == 5 and set(lost) <= set(found), "each lost packet comes again")
        await viewer.sees(len(viewer.frames[0]) + 10)
        assert not any(frame.is_corrupt for frame in frames)


async def test_leaving_frees_the_session():
    async with gateway() as served:
        async with Viewer(served) as viewer:
            await viewer.sees(3)
            assert (await served.http.delete(viewer.location)).status_code == 200
            assert (await served.http.delete(viewer.location)).status_code == 404
            await until(lambda: viewer.pc.connectionState == "closed", "the viewer learns of it")
        assert (await served.stream())["viewers"]["whep"] == 0


async def test_a_viewer_that_just_goes_is_forgotten():
    async with gateway() as served:
        async with Viewer(served) as viewer:
            await viewer.sees(3)

        async def nobody() -> bool:
            return (await served.stream())["viewers"]["whep"] == 0

        await until(nobody, "the viewer is forgotten")
        assert (await served.metrics())['livesr_viewers{protocol="whep",stream="demo"}'] == 0


async def test_a_viewer_that_vanishes_is_given_up_when_its_consent_expires(monkeypatch):
    """Its machine lost power: no DTLS alert, no DELETE, no answer to checks (RFC 7675)."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(3)
        for protocol in viewer.pc.getReceivers()[0].transport.transport._connection._protocols:
            protocol.transport.abort()

        async def nobody() -> bool:
            return (await served.stream())["viewers"]["whep"] == 0

        await until(nobody, "the viewer is given up")


async def test_the_end_of_a_session_is_said_by_rtcp_bye():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(3)
        over: list[int] = []
        for receiver in viewer.pc.getReceivers():
            handle = receiver._handle_rtcp_packet

            async def on_rtcp(packet, handle=handle) -> None:
                if isinstance(packet, RtcpByePacket):
                    over.extend(packet.sources)
                await handle(packet)

            receiver._handle_rtcp_packet = on_rtcp
        assert (await served.http.delete(viewer.location)).status_code == 200
        media = SessionDescription.parse(viewer.response.text).media
        lines = {source.ssrc for line in media for source in line.ssrc}
        await until(lambda: set(over) == lines, "each source says goodbye")


async def test_a_session_may_end_before_it_is_connected():
    async with gateway() as served:
        viewer = Viewer(served)
        response = await served.http.post("/whep/demo", content=await viewer.offer(), headers=SDP)
        assert (await served.http.delete(response.headers["Location"])).status_code == 200
        assert (await served.stream())["viewers"]["whep"] == 0
        await viewer.pc.close()


async def test_deleting_a_stream_ends_its_viewers():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(3)
        assert (await served.http.delete("/api/streams/demo")).status_code == 204
        await until(lambda: viewer.pc.connectionState == "closed", "the viewer's connection ends")


async def test_the_answer_has_what_whep_asks_for():
    servers = [
        {"urls": ["stun:127.0.0.1:1"]},
        {"urls": ["turn:t.example:1"], "username": "u", "credential": "p"},
    ]
    async with gateway(webrtc={"host_addresses": ["127.0.0.1"]}) as served, Viewer(served) as viewer:
        headers = viewer.response.headers
        assert headers["Content-Type"].startswith("application/sdp")
        assert headers["Location"].startswith("/whep/demo/")
        assert headers["ETag"]
        answer = SessionDescription.parse(viewer.response.text)
        assert [m.direction for m in answer.media] == ["sendonly", "sendonly"]
        assert all(m.ice_candidates_complete and m.ice_candidates for m in answer.media)
        assert {c.ip for m in answer.media for c in m.ice_candidates} == {"127.0.0.1"}
        assert answer.media[0].dtls.role == "server"  # the viewer is DTLS client: GStreamer must be
    async with gateway(streams=("demo",), webrtc={"ice_servers": servers}) as served:
        links = (await served.http.options("/whep/demo")).headers["Link"]
        assert '<stun:127.0.0.1:1>; rel="ice-server"' in links
        assert '<turn:t.example:1>; rel="ice-server"; username="u"; credential="p"' in links


async def test_candidates_may_trickle():
    async with gateway() as served:
        viewer = Viewer(served)
        offer = await viewer.offer()
        bare = "".join(line + "\r\n" for line in offer.splitlines() if "candidate" not in line)
        candidates = [line for line in offer.splitlines() if line.startswith("a=candidate")]
        ufrag = next(line for line in offer.splitlines() if line.startswith("a=ice-ufrag"))

        class Trickling(httpx.AsyncClient):
            async def post(self, url, *, content, **rest):
                response = await served.http.post(url, content=bare, headers=SDP)
                fragment = "\r\n".join([ufrag, "m=audio 9 RTP/AVP 0", "a=mid:0", *candidates, ""])
                wrong = await served.http.patch(
                    response.headers["Location"], content=fragment, headers=FRAGMENT | {"If-Match": '"x"'}
                )
                assert wrong.status_code == 412
                restart = fragment.replace(ufrag, "a=ice-ufrag:other")
                refused = await served.http.patch(
                    response.headers["Location"], content=restart, headers=FRAGMENT
                )
                assert refused.status_code == 422
                assert "restart" in refused.json()["detail"]
                done = await served.http.patch(
                    response.headers["Location"],
                    content=fragment + "a=end-of-candidates\r\n",
                    headers=FRAGMENT | {"If-Match": response.headers["ETag"]},
                )
                assert done.status_code == 204
                return response

        viewer.gateway = Gateway(served.base, Trickling(), served.placement)
        async with viewer:
            await viewer.sees(3)


async def test_named_sites_may_play_but_not_manage():
    async with gateway(server={"cors_origins": ["*"]}) as served:
        ask = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
        assert (await served.http.options("/whep/demo", headers=ask)).headers[
            "Access-Control-Allow-Origin"
        ] == "*"
        response = await served.http.post("/whep/none", headers={"Origin": "https://elsewhere.example"} | SDP)
        assert "Location" in response.headers["Access-Control-Expose-Headers"]
        assert (
            "Access-Control-Allow-Origin"
            not in (await served.http.options("/api/streams", headers=ask)).headers
        )


async def test_a_stream_that_ends_closes_its_viewers():
    async with gateway() as served, Viewer(served) as viewer:
        await viewer.sees(5)
        served.worker.hang()
        served.worker.say(JobImpossible(reason="the source has ended"))
        await until(lambda: viewer.pc.connectionState == "closed", "the viewer is told", timeout_s=10)
        assert (await served.stream())["viewers"]["whep"] == 0
