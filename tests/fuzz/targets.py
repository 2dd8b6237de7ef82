"""What reads the bytes of others: each with valid input to begin with, and how it may refuse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from tomllib import TOMLDecodeError, loads
from typing import get_args

from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtcpPacket, RtpPacket

from server.gateway.errors import InvalidOffer
from server.gateway.hls import playlist
from server.gateway.hls.sink import HlsSink
from server.gateway.publish import Admission, Malformed, Publication
from server.gateway.publish.rtmp.dialogue import RtmpDialogue
from server.gateway.publish.rtsp.dialogue import RtspDialogue
from server.gateway.webrtc.feedback import split_feedback
from server.gateway.webrtc.inbound import offer as inbound
from server.gateway.webrtc.inbound.begins import VideoCodec
from server.gateway.webrtc.inbound.track import Track
from server.gateway.webrtc.negotiate import Sources, answer_sdp, parse_fragment, parse_offer
from server.gateway.webrtc.path import Path as NetworkPath
from server.gateway.webrtc.rtp import h264_frame
from server.gateway.webrtc.session import Local
from server.settings import Hls
from server.settings.read import check
from server.wire.codec import Decoder, ProtocolError, encode
from server.wire.messages import PieceKind, Trace, VideoPacket
from server.worker.ingest.rtp import RtpStream
from server.worker.ingest.transport import Arrivals, Segment, TransportStream
from tests.conftest import ROOT
from tests.server.gateway.publish import handmade
from tests.server.gateway.scripted_media import FRAME_TICKS, Encoder, opened
from tests.server.gateway.test_negotiate import CHROMIUM_OFFER
from tests.server.gateway.test_whip import OFFER as WHIP_OFFER
from tests.server.wire.test_messages import MESSAGES
from tests.server.worker.test_rtp import Server as RtpServer
from tests.server.worker.test_transport import Handmade


@dataclass(frozen=True, kw_only=True)
class Target:
    """`run` gets mutated bytes and may raise nothing but `refusal`."""

    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    refusal: tuple[type[Exception], ...]


def _offer(data: bytes) -> None:
    offer = parse_offer(data.decode(errors="replace"))
    answer_sdp(
        offer,
        session_id=1,
        ice=RTCIceParameters(usernameFragment="ufrag", password="password"),
        candidates=[],
        dtls=RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint(algorithm="sha-256", value="5A")]),
        sources={
            line.mid: Sources(ssrc=1, rtx_ssrc=2, cname="x", timestamp_origin=0) for line in offer.lines
        },
    )


def _arrivals(data: bytes) -> None:
    """A viewer's transport-wide feedback, and what a path makes of it."""
    path = NetworkPath()
    path.sent([1000] * 20, 1.0)
    for arrivals in split_feedback(data)[0]:
        path.heard(arrivals, 1.1)
        assert path.loss <= 1
        path.congested(1.2)


def _whip_offer(data: bytes) -> None:
    offer = inbound.parse_offer(data.decode(errors="replace"))
    local = Local(
        ice=RTCIceParameters(usernameFragment="ufrag", password="password"),
        candidates=[],
        dtls=RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint(algorithm="sha-256", value="5A")]),
    )
    inbound.answer_sdp(offer, local, session_id=1)
    assert offer.description.decode()


def _published_rtp(data: bytes) -> None:
    """A publisher's packets, a length before each, as pictures of every codec and as sound."""
    for video in (*get_args(VideoCodec), None):
        codec = RTCRtpCodecParameters(mimeType="x/x", clockRate=90_000, payloadType=96)
        rtx = RTCRtpCodecParameters(mimeType="x/rtx", clockRate=90_000, payloadType=97)
        line = inbound.Line(index=0, mid="0", video=video, codec=codec, rtx=rtx, extensions={})
        track, at, now_s, given = Track(0, line), 0, 0.0, 0
        while at + 2 <= len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2])
            try:
                packet = RtpPacket.parse(data[at + 2 : end])
            except ValueError:
                packet = None
            at, now_s = end, now_s + 0.01
            pieces = [] if packet is None else list(track.rtp(packet, 1, now_s))
            given += sum(len(piece.data) for piece in [*pieces, *track.expire(now_s)])
            for answer in (*track.nacks(now_s), track.picture_loss(), track.receiver_report(now_s)):
                assert answer is None or RtcpPacket.parse(answer)
        assert given < 4 * len(data) + 1000


def _settings(data: bytes) -> None:
    try:
        tables = loads(data.decode(errors="replace"))
    except (TOMLDecodeError, RecursionError):
        return  # the TOML reader's own affair
    check(tables, "settings")


def _rtcp(data: bytes) -> None:
    for packet in RtcpPacket.parse(data):
        bytes(packet)


def _access_unit(data: bytes) -> None:
    """One damaged frame between two whole ones: packetised, cut into segments, told in playlists."""
    sink = HlsSink(Hls(segment_s=1.0), on_need_keyframe=lambda: None)
    sink.watch(("upscaled",))
    sink.opened(opened())
    whole = _access_units()
    for index in range(60):
        payload = data if index == 1 else whole[index % len(whole)]
        packet = VideoPacket(
            rendition="upscaled",
            pts=index * FRAME_TICKS,
            duration=FRAME_TICKS,
            keyframe=index % len(whole) == 0,
            arrival_ns=0,
            sent_ns=0,
            trace=Trace(demux=0, decode=0, queue=0, upscale=0, encode=0),
            payload=payload,
        )
        h264_frame(packet)
        sink.video(packet)
    playlist.media(sink)


class _Line:
    """A publisher's connection that lets everybody in."""

    def __init__(self) -> None:
        self.over = False
        self._publication: Publication | None = None

    def write(self, data: bytes) -> None:
        assert data

    def knows(self, path: bytes) -> bool:
        return True

    def publish(self, path: bytes, publication: Publication) -> Admission:
        self._publication = publication
        return "accepted"

    def push(self, data: bytes, kind: PieceKind, *, picture: bool) -> None:
        assert self._publication is not None
        assert data
        if kind == "start":
            assert len(self._publication.prelude() + self._publication.headers()) < 1 << 20

    def hang_up(self, reason: str) -> None:
        self.over = True


def _publish(speaks: type[RtmpDialogue] | type[RtspDialogue], data: bytes) -> None:
    """What a publisher sends, in pieces as they come from a socket."""
    line = _Line()
    dialogue = speaks(line)
    for start in range(0, len(data), 1000):
        if line.over:
            return
        dialogue.feed(data[start : start + 1000])


@cache
def _on_its_way(data: bytes) -> None:
    rtp = RtpStream()
    rtp.follow(0, "h264")
    out = rtp.feed(data, 1) + rtp.feed(data, 1)
    assert len(out) < 4 * len(data) + (1 << 17)


def _transport_stream(data: bytes) -> None:
    for codec in ("h264", "hevc", "mpeg2video"):
        transport = TransportStream()
        transport.follow(0x100, codec)
        transport.feed(data, 1)
        transport.feed(data[1:], 1)
    Segment(Arrivals()).feed(data, 1)


def _access_units() -> tuple[bytes, ...]:
    encoder = Encoder(160, 120, 0.4)
    return tuple(encoder.encode(index, index * FRAME_TICKS)[0] for index in range(10))


FRAGMENT = b"""a=ice-ufrag:abcd\r
m=video 9 UDP/TLS/RTP/SAVPF 96\r
a=mid:0\r
a=candidate:1 1 udp 2122260223 192.0.2.1 49152 typ host generation 0 ufrag abcd network-id 1\r
a=candidate:2 1 udp 1686052607 198.51.100.7 61000 typ srflx raddr 192.0.2.1 rport 49152\r
a=end-of-candidates\r
"""
NACK = bytes.fromhex("81cd000300000001000000020010ffff")
PLI = bytes.fromhex("81ce00020000000100000002")
REPORT = bytes.fromhex("81c900070000000100000002000000000000000000000000000000000000000000000000")[:32]
# Of seven packets by a run, a vector of one bit and one of two, between two reports.
ARRIVALS = bytes.fromhex("8fcd0007000000010000000200050007000123002003a000c900040810000400")

_RTMP_MEDIA = b"".join(
    (
        handmade.chunks(18, handmade.METADATA),
        handmade.chunks(9, handmade.SEQUENCE_HEADER),
        handmade.chunks(9, handmade.KEY_FRAME),
        handmade.chunks(9, handmade.FRAME, time_ms=40),
        handmade.chunks(8, b"\xaf\1" + bytes(60), at=5, time_ms=41),
        handmade.chunks(9, b"\x97\2\0\0\0\1hvc1\0\0\0key", time_ms=1 << 25),
    )
)
_RTSP_URL = "rtsp://127.0.0.1/live/key"
_RTSP = b"".join(
    (
        handmade.request("OPTIONS", _RTSP_URL),
        handmade.request("ANNOUNCE", _RTSP_URL, 2, handmade.SDP),
        *(
            handmade.request(
                "SETUP",
                f"{_RTSP_URL}/streamid={track}",
                3,
                transport=f"RTP/AVP/TCP;unicast;interleaved={2 * track}-{2 * track + 1};mode=record",
            )
            for track in (0, 1)
        ),
        handmade.request("RECORD", _RTSP_URL, 5),
        handmade.frame(0, bytes(300)) + handmade.frame(2, bytes(90)),
        handmade.request("GET_PARAMETER", _RTSP_URL, 6),
        handmade.frame(1, bytes(28)),
        handmade.request("TEARDOWN", _RTSP_URL, 7),
    )
)

_RTP = b"".join(rtp_server.frame(time * 3600) for rtp_server in [RtpServer()] for time in range(20))
_TRANSPORT = b"".join(frames.pes(bytes(300)) for frames in [Handmade()] for _ in range(20))

_PAYLOADS = ("67640028", "7c85ffff", "10000000", "9b973610014000f0824983", "dd97370286004092", "180a0bff")
_PUBLISHED = [
    b"".join(
        len(data).to_bytes(2) + data
        for number in range(30)
        for data in [
            RtpPacket(
                payload_type=97 if number % 7 == 6 else 96,
                marker=number % 3 == 2,
                sequence_number=(65_520 + number + number // 10) % (1 << 16),
                timestamp=number // 3 * 4500,
                ssrc=1,
                payload=bytes.fromhex(payload),
            ).serialize()
        ]
    )
    for payload in _PAYLOADS
]

TARGETS = {
    "offer": Target(seeds=[CHROMIUM_OFFER.encode()], run=_offer, refusal=(InvalidOffer,)),
    "candidates": Target(
        seeds=[FRAGMENT],
        run=lambda data: parse_fragment(data.decode(errors="replace")),
        refusal=(InvalidOffer,),
    ),
    "publisher's offer": Target(seeds=[WHIP_OFFER.encode()], run=_whip_offer, refusal=(InvalidOffer,)),
    "publisher's packets": Target(seeds=_PUBLISHED, run=_published_rtp, refusal=()),
    # aiortc's transport drops what its parser refuses by ValueError; anything else would end the viewer.
    "rtcp": Target(seeds=[NACK, PLI, REPORT], run=_rtcp, refusal=(ValueError,)),
    "arrivals": Target(seeds=[ARRIVALS, REPORT + ARRIVALS + NACK], run=_arrivals, refusal=(ValueError,)),
    "messages": Target(
        seeds=[bytes(encode(message)) for message in MESSAGES],
        run=lambda data: Decoder().feed(data),
        refusal=(ProtocolError,),
    ),
    "rtmp": Target(
        seeds=[
            handmade.publishing("live", "key")[start:] + media
            for start in (0, len(handmade.HANDSHAKE))
            for media in (_RTMP_MEDIA, b"")
        ],
        run=lambda data: _publish(
            RtmpDialogue, data if data.startswith(b"\3\0") else handmade.HANDSHAKE + data
        ),
        refusal=(Malformed,),
    ),
    "rtsp": Target(seeds=[_RTSP], run=lambda data: _publish(RtspDialogue, data), refusal=(Malformed,)),
    "rtp on its way": Target(seeds=[_RTP], run=_on_its_way, refusal=()),
    "transport stream": Target(seeds=[_TRANSPORT], run=_transport_stream, refusal=()),
    "access unit": Target(seeds=_access_units(), run=_access_unit, refusal=()),
    "settings": Target(
        seeds=[(ROOT / "deploy" / name).read_bytes() for name in ("livesr.toml", "demo.toml")],
        run=_settings,
        refusal=(ValueError,),
    ),
}
