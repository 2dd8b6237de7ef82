"""WebRTC viewers of a real gateway: aiortc over loopback, workers scripted."""

import itertools
import time

import httpx
import pytest
from aiortc import RTCRtpReceiver
from aiortc.rtcdtlstransport import RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket
from aiortc.sdp import SessionDescription
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import InvalidOffer
from server.messages import Failed
from server.publish.negotiate import Sources, answer_sdp, parse_offer
from tests.server.gateway import (  # noqa: F401
    Gateway,
    Script,
    ScriptedPlacement,
    Viewer,
    gateway,
    loopback,
    until,
)

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


async def test_a_second_video_line_gets_the_plain_picture_and_only_while_somebody_watches():
    async with gateway() as served:
        await served.in_state("running")
        assert not served.worker.plain
        async with Viewer(served, videos=2) as viewer:
            frames = await viewer.sees(10, video=1)
            assert (frames[0].width, frames[0].height) == (80, 60)
            upscaled = await viewer.sees(10, video=0)
            assert upscaled[0].width == 160
            served.worker.die()
            await until(lambda: len(served.placement.workers) == 2, "a second worker")
            await until(lambda: served.worker.plain, "the new worker makes the plain picture as well")
            await viewer.sees(len(viewer.frames[1]) + 10, video=1)
        await until(lambda: not served.worker.plain, "the plain picture ends with its last viewer")


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


async def test_other_sites_may_play_but_not_manage():
    async with gateway() as served:
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


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/whep/nobody", "OFFER", SDP, 404, "nobody"),
        ("/whep/demo", "OFFER", {"Content-Type": "application/json"}, 415, "application/sdp"),
        ("/whep/demo", "OFFER", {}, 415, "application/sdp"),
        ("/whep/demo", "hello", SDP, 400, "m-line"),
        ("/whep/demo", "", SDP, 400, "m-line"),
        ("/whep/demo", b"\xff\xfe", SDP, 400, "UTF-8"),
        ("/whep/demo", "v=0\r\nm=video x", SDP, 400, "no valid SDP"),
        ("/whep/demo", "v" * 70_000, SDP, 413, "65536"),
        ("/whep/demo", "OFFER without H264", SDP, 400, "H264"),
        ("/whep/demo", "OFFER without ice", SDP, 400, "ice-ufrag"),
        ("/whep/demo", "OFFER without fingerprint", SDP, 400, "fingerprint"),
        ("/whep/demo", "OFFER sendonly", SDP, 400, "may receive"),
        ("/whep/broken", "OFFER", SDP, 409, "no video in it"),
        ("/whep/full", "OFFER", SDP, 503, "max_viewers_per_stream=1"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_words(path, body, headers, status, words):
    async with gateway(streams=("demo", "full", "broken"), limits={"max_viewers_per_stream": 1}) as served:
        await served.in_state("running", "full")
        served.placement.workers[2].say(Failed(reason="no video in it"))
        await served.in_state("failed", "broken")
        async with Viewer(served, "full"):
            visitor = Viewer(served)
            offer = await visitor.offer()
            await visitor.pc.close()
            offers = {
                "OFFER": offer,
                "OFFER without H264": offer.replace("H264", "H265"),
                "OFFER without ice": offer.replace("a=ice-ufrag", "a=x"),
                "OFFER without fingerprint": offer.replace("a=fingerprint", "a=x"),
                "OFFER sendonly": offer.replace("a=recvonly", "a=sendonly"),
            }
            content = offers.get(body, body) if isinstance(body, str) else body
            response = await served.http.post(path, content=content, headers=headers)
            assert response.status_code == status, response.text
            assert response.headers["Content-Type"] == "application/problem+json"
            assert words in response.json()["detail"]


CHROMIUM_OFFER = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 105 112 113
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 9b36eaac-bb2e-49bb-bb78-21c41c499900.local 51000 typ host generation 0
a=ice-ufrag:abcd
a=ice-pwd:aaaabbbbccccddddeeeeffff
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
a=mid:0
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=recvonly
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=rtcp-fb:102 goog-remb
a=rtcp-fb:102 nack
a=rtcp-fb:102 nack pli
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=rtpmap:104 H264/90000
a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=64001f
a=rtpmap:105 rtx/90000
a=fmtp:105 apt=104
a=rtpmap:112 H264/90000
a=rtcp-fb:112 nack
a=rtcp-fb:112 nack pli
a=fmtp:112 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f
a=rtpmap:113 rtx/90000
a=fmtp:113 apt=112
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:abcd
a=ice-pwd:aaaabbbbccccddddeeeeffff
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
a=mid:1
a=sctp-port:5000
""".replace("FINGERPRINT", ":".join(["5A"] * 32))


async def test_a_browsers_offer_is_answered_in_its_own_terms():
    async with gateway() as served:
        response = await served.http.post(
            "/whep/demo", content=CHROMIUM_OFFER.replace("\n", "\r\n"), headers=SDP
        )
        assert response.status_code == 201, response.text
        video, data = SessionDescription.parse(response.text).media
        assert [c.payloadType for c in video.rtp.codecs] == [
            112,
            113,
        ]  # High, fragments allowed, retransmission
        assert video.rtp.codecs[0].parameters["profile-level-id"] == "64001f"
        assert [e.id for e in video.rtp.headerExtensions] == [4]
        assert data.port == 0
        assert "a=group:BUNDLE 0\r\n" in response.text


async def test_candidates_that_nobody_can_reach_are_passed_over():
    odd = (
        "a=candidate:1 1 udp 1 not-an-address 5000 typ host",
        "a=candidate:2 1 udp 1 127.0.0.1 99999 typ host",
        "a=candidate:3 1 tcp 1 127.0.0.1 9 typ host tcptype active",
        "a=candidate:4 1 udp 1 127.0.0.1 5000 typ nonsense",
    )
    async with gateway() as served:
        offer = CHROMIUM_OFFER.replace("a=ice-ufrag", "\n".join((*odd, "a=ice-ufrag")), 1)
        response = await served.http.post("/whep/demo", content=offer, headers=SDP)
        assert response.status_code == 201, response.text
        assert (await served.http.delete(response.headers["Location"])).status_code == 200


def test_an_offer_without_bundle_gets_its_first_line():
    offer = parse_offer(CHROMIUM_OFFER.replace("a=group:BUNDLE 0 1\n", ""))
    assert [line.mid for line in offer.lines] == ["0"]


def test_gstreamers_h264_without_parameters_is_taken():
    lines = [
        line
        for line in CHROMIUM_OFFER.splitlines()
        if not line.startswith(("a=fmtp:102", "a=rtpmap:112", "a=fmtp:11"))
    ]
    (line,) = parse_offer("\r\n".join(lines)).lines
    assert line.codec.payloadType in (102, 104)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_no_mangled_offer_does_worse_than_being_refused(data):
    lines = CHROMIUM_OFFER.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "cut", "junk"]))
        if change == "drop" and len(lines) > 1:
            del lines[index]
        elif change == "double":
            lines.insert(index, lines[index])
        elif change == "cut":
            lines[index] = lines[index][: data.draw(st.integers(0, len(lines[index])))]
        else:
            lines[index] = lines[index].replace("0", data.draw(st.text(max_size=5)))
    try:
        offer = parse_offer("\r\n".join(lines))
    except InvalidOffer:
        return
    sources = {line.mid: Sources(ssrc=1, rtx_ssrc=2, cname="x") for line in offer.lines}
    dtls = RTCDtlsParameters(fingerprints=[])
    answer = answer_sdp(
        offer, session_id=1, ice=RTCIceParameters("u", "p"), candidates=[], dtls=dtls, sources=sources
    )
    assert answer.count("m=") >= len(offer.lines) >= 1
