"""What is answered to an offer, and what is refused: a browser's, GStreamer's, mangled ones."""

import re
import time

import pytest
from aiortc.rtcdtlstransport import RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from aiortc.sdp import SessionDescription
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.gateway.errors import InvalidOffer
from server.gateway.webrtc.negotiate import Sources, answer_sdp, parse_offer
from server.gateway.webrtc.profile import ProfileLevel
from server.wire.messages import JobImpossible, Trace, VideoPacket
from tests.server.gateway.scripted_gateway import Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.scripted_media import Encoder, opened
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement

SDP = {"Content-Type": "application/sdp"}


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
        ("/whep/demo", "OFFER of neither codec", SDP, 400, "H264"),
        ("/whep/demo", "OFFER without ice", SDP, 400, "ice-ufrag"),
        ("/whep/demo", "OFFER with a long ice-ufrag", SDP, 400, "has 257 characters; it must have 4"),
        ("/whep/demo", "OFFER with a short ice-pwd", SDP, 400, "has 21 characters; it must have 22"),
        ("/whep/demo", "OFFER without fingerprint", SDP, 400, "fingerprint"),
        ("/whep/demo", "OFFER sendonly", SDP, 400, "may receive"),
        ("/whep/broken", "OFFER", SDP, 409, "no video in it"),
        ("/whep/full", "OFFER", SDP, 503, "max_viewers_per_stream=1"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_words(path, body, headers, status, words):
    async with gateway(streams=("demo", "full", "broken"), limits={"max_viewers_per_stream": 1}) as served:
        await served.in_state("running", "full")
        served.placement.workers[2].say(JobImpossible(reason="no video in it"))
        await served.in_state("failed", "broken")
        async with Viewer(served, "full"):
            visitor = Viewer(served)
            offer = await visitor.offer()
            await visitor.pc.close()
            offers = {
                "OFFER": offer,
                "OFFER of neither codec": offer.replace("H264", "H265").replace("VP8", "VP9"),
                "OFFER without ice": offer.replace("a=ice-ufrag", "a=x"),
                "OFFER with a long ice-ufrag": re.sub("ice-ufrag:.*", f"ice-ufrag:{'u' * 257}", offer),
                "OFFER with a short ice-pwd": re.sub("ice-pwd:.*", f"ice-pwd:{'p' * 21}", offer),
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
        await served.in_state("running")
        response = await served.http.post(
            "/whep/demo", content=CHROMIUM_OFFER.replace("\n", "\r\n"), headers=SDP
        )
        assert response.status_code == 201, response.text
        video, data = SessionDescription.parse(response.text).media
        # Baseline, which plays the constrained baseline of the scripted encoder; fragments; retransmission.
        assert [c.payloadType for c in video.rtp.codecs] == [102, 103]
        assert video.rtp.codecs[0].parameters["profile-level-id"][:4] == "4200"
        assert [e.id for e in video.rtp.headerExtensions] == [4]
        assert data.port == 0
        # GStreamer takes no answer in which they are missing.
        assert (data.ice, data.dtls) == (video.ice, video.dtls)
        assert "a=group:BUNDLE 0\r\n" in response.text


def test_of_a_stream_that_is_yet_unknown_the_best_profile_is_taken():
    (line,) = parse_offer(CHROMIUM_OFFER).lines
    assert (line.codec.payloadType, line.rtx.payloadType) == (112, 113)  # High, fragments allowed


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


TRANSPORT = re.compile("a=(candidate|ice-ufrag|ice-pwd|fingerprint|setup):")


@pytest.mark.parametrize("whole", [True, False])
def test_a_line_that_is_offered_within_the_bundle_alone_is_no_line_that_is_declined(whole):
    """Of "max-bundle"; `whole`: with its transport, as GStreamer has it, or without (RFC 9143)."""
    head, video, data = CHROMIUM_OFFER.replace("BUNDLE 0 1", "BUNDLE a 0").split("m=")
    video = video.replace("video 9", "video 0")
    lines = [line for line in video.splitlines() if whole or not TRANSPORT.match(line)]
    sound = "audio 9 UDP/TLS/RTP/SAVPF 111\n" + "\n".join(
        ["a=mid:a", "a=recvonly", "a=rtpmap:111 opus/48000/2", *filter(TRANSPORT.match, video.splitlines())]
    )
    bundled = [head.strip(), f"m={sound}", "m=" + "\n".join([*lines, "a=bundle-only"]), f"m={data}"]
    offer = parse_offer("\n".join(bundled))
    assert [(line.mid, line.kind) for line in offer.lines] == [("a", "audio"), ("0", "video")]
    deaf = parse_offer("\n".join(bundled).replace("opus", "pcmu"))
    assert [line.mid for line in deaf.lines] == ["0"]
    assert deaf.remote == offer.remote, "the transport of the first line, that is not taken itself"


def test_without_a_bundle_the_picture_is_taken_wherever_its_line_is():
    head, video, data = CHROMIUM_OFFER.replace("a=group:BUNDLE 0 1\n", "").split("m=")
    sound = "audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:a\na=recvonly\na=rtpmap:111 opus/48000/2\n"
    offer = parse_offer("m=".join([head, sound, video, data]))
    assert [line.mid for line in offer.lines] == ["0"]


def test_gstreamers_h264_without_parameters_is_taken():
    lines = [
        line
        for line in CHROMIUM_OFFER.splitlines()
        if not line.startswith(("a=fmtp:102", "a=rtpmap:112", "a=fmtp:11"))
    ]
    (line,) = parse_offer("\r\n".join(lines)).lines
    assert line.codec.payloadType in (102, 104)


SIX_PROFILES = ("42001f", "42e01f", "4d001f", "640c1f", "64001f")


def offer_of(*profiles: str, asymmetry: int = 1) -> str:
    """Chromium's, with these profiles instead; payload types count from 40."""
    lines = [line for line in CHROMIUM_OFFER.splitlines() if not re.match("a=(fmtp|rtpmap|rtcp-fb):", line)]
    types = range(40, 40 + len(profiles))
    words = [f"a=rtpmap:{t} H264/90000" for t in types]
    words += [
        f"a=fmtp:{t} level-asymmetry-allowed={asymmetry};packetization-mode=1;profile-level-id={profile}"
        for t, profile in zip(types, profiles, strict=True)
    ]
    at = lines.index("a=rtcp-mux") + 1
    text = "\n".join([*lines[:at], *words, *lines[at:]])
    return text.replace("96 97 102 103 104 105 112 113", " ".join(map(str, types)))


@pytest.mark.parametrize(
    ("sent", "offered", "asymmetry", "answered"),
    [
        ("42c033", SIX_PROFILES, 1, "42e033"),  # constrained baseline 5.1, which may exceed the offer's level
        ("42c00d", SIX_PROFILES, 1, "42e00d"),
        ("4d4028", SIX_PROFILES, 1, "4d0028"),
        ("640028", SIX_PROFILES, 1, "640028"),
        ("640c28", SIX_PROFILES, 1, "640c28"),
        ("42c01f", ("64001f", "4d001f"), 1, "4d001f"),  # the least that plays it
        ("42c01e", ("64001f",), 0, "64001e"),
        ("640033", ("64001f",), 0, "64001f"),  # the offer's level is the highest that an answer may say
        ("640028", ("42e01f", "64001f", "640033"), 0, "640028"),  # the one that takes the level
        ("640028", ("42001f", "42e01f"), 1, "420028"),  # nothing fits: the profile is the offer's to say
        ("640028", ("64001f", "nonsense"), 1, "640028"),
    ],
)
def test_the_answer_says_what_is_sent(sent, offered, asymmetry, answered):
    offer = offer_of(*offered, asymmetry=asymmetry)
    (line,) = parse_offer(offer, {"upscaled": ProfileLevel.parse(sent)}).lines
    assert line.codec.parameters["profile-level-id"] == answered


async def test_the_answer_says_what_the_stream_is_encoded_as():
    """x264's ultrafast makes constrained baseline, and of 2160p level 5.1 or more."""
    placement = ScriptedPlacement(Script(width=3840, height=2160, audio=False, live=False))
    async with gateway(placement) as served:
        await until(lambda: placement.workers, "a worker")
        payload, keyframe = Encoder(3840, 2160, 2.0).encode(0, 0)
        now_ns = time.monotonic_ns()
        served.worker.say(opened(3840, 2160))
        served.worker.say(
            VideoPacket(
                rendition="upscaled",
                pts=0,
                duration=3600,
                keyframe=keyframe,
                arrival_ns=now_ns,
                sent_ns=now_ns,
                trace=Trace(demux=0, decode=0.0, queue=0.0, upscale=0.0, encode=0.0),
                payload=payload,
            )
        )
        await served.in_state("running")
        response = await served.http.post("/whep/demo", content=offer_of(*SIX_PROFILES), headers=SDP)
        (codec,) = SessionDescription.parse(response.text).media[0].rtp.codecs
        answered = ProfileLevel.parse(codec.parameters["profile-level-id"])
        assert answered.profile == "constrained baseline"
        assert answered.level == ProfileLevel.of(payload).level >= 50


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
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
    sources = {line.mid: Sources(ssrc=1, rtx_ssrc=2, cname="x", timestamp_origin=3) for line in offer.lines}
    dtls = RTCDtlsParameters(fingerprints=[])
    answer = answer_sdp(
        offer, session_id=1, ice=RTCIceParameters("u", "p"), candidates=[], dtls=dtls, sources=sources
    )
    assert answer.count("m=") >= len(offer.lines) >= 1
