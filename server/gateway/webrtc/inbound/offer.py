"""From a publisher's SDP offer to the lines we take, and what is answered (RFC 9725, 9429)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from aiortc.rtcdtlstransport import RTCDtlsParameters
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.sdp import GroupDescription, MediaDescription, SessionDescription

from server.gateway.errors import InvalidOffer
from server.gateway.webrtc.feedback import TRANSPORT_CC_URI
from server.gateway.webrtc.inbound.begins import VideoCodec
from server.gateway.webrtc.negotiate import (
    MID_URI,
    Remote,
    decline,
    find_rtx,
    parse_remote,
    parse_session,
    video_bundle,
)
from server.gateway.webrtc.session import Local
from server.wire.messages import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ

_VIDEO: dict[str, VideoCodec] = {name.lower(): name for name in get_args(VideoCodec)}
_FEEDBACK = (("nack", None), ("nack", "pli"), ("transport-cc", None))
_FIRST_TYPE = 96  # of the packets that the worker gets


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One m-line that we receive; `video` is None for sound."""

    index: int
    mid: str
    video: VideoCodec | None
    codec: RTCRtpCodecParameters
    rtx: RTCRtpCodecParameters | None
    extensions: Mapping[str, int]  # the ids of those answered, by URI (RFC 8285)

    @property
    def payload_types(self) -> tuple[int, ...]:
        """The codec's first, then that of retransmission, where there is one."""
        found = (self.codec.payloadType, self.rtx.payloadType if self.rtx else None)
        return tuple(number for number in found if number is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A publisher's offer, understood: one picture and at most one sound over one transport."""

    remote: Remote
    media: tuple[MediaDescription, ...]
    lines: tuple[Line, ...]

    @property
    def description(self) -> bytes:
        """The SDP of what the worker gets, track n being line n with `payload_type(n)`."""
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        for track, line in enumerate(self.lines):
            number = payload_type(track)
            lines.append(f"m={'video' if line.video else 'audio'} 0 RTP/AVP {number}")
            if line.video:
                lines.append(f"a=rtpmap:{number} {line.video}/{VIDEO_CLOCK_HZ}")
            else:
                lines.append(f"a=rtpmap:{number} opus/{AUDIO_CLOCK_HZ}/2")
            if line.video == "H264":
                lines.append(f"a=fmtp:{number} packetization-mode=1")
            lines.append(f"a=control:track={track}")
        return "\r\n".join([*lines, ""]).encode()


def payload_type(track: int) -> int:
    return _FIRST_TYPE + track


def parse_offer(sdp: str) -> Offer:
    """Raises InvalidOffer where this is no SDP, or no offer of a publisher whom we could take."""
    session = parse_session(sdp)
    lines = tuple(_lines(session))
    if not any(line.video for line in lines):
        names = ", ".join(get_args(VideoCodec))
        raise InvalidOffer(f"the offer has no video m-line that sends one of {names}")
    return Offer(media=tuple(session.media), lines=lines, remote=parse_remote(session.media[lines[0].index]))


def _lines(session: SessionDescription) -> Iterator[Line]:
    taken = set[str]()
    types = set[int]()
    usable = {
        index: codec
        for index, media in enumerate(session.media)
        if (codec := _choose(media)) and media.direction in (None, "sendonly", "sendrecv")
    }
    bundle = video_bundle(session, usable)
    for index, codec in usable.items():
        media = session.media[index]
        mid = media.rtp.muxId or str(index)
        if mid not in bundle or media.kind in taken:
            continue
        taken.add(media.kind)
        line = Line(
            index=index,
            mid=mid,
            video=_VIDEO.get(codec.name.lower()),
            codec=codec,
            rtx=find_rtx(media, codec),
            extensions={
                e.uri: e.id
                for e in media.rtp.headerExtensions
                if e.uri in (MID_URI, TRANSPORT_CC_URI) and 0 < e.id < 15
            },
        )
        if not types.isdisjoint(line.payload_types):
            raise InvalidOffer(f"the offer gives a payload type of {line.payload_types} to two m-lines")
        types.update(line.payload_types)
        yield line


def _choose(media: MediaDescription) -> RTCRtpCodecParameters | None:
    """The first of the line's codecs that we take: the offer has the best first (RFC 3264, section 6.1)."""
    if media.port == 0:
        return None
    for codec in media.rtp.codecs:
        name = codec.name.lower()
        if media.kind == "video" and name in _VIDEO and codec.clockRate == VIDEO_CLOCK_HZ:
            return codec
        if media.kind == "audio" and name == "opus" and codec.clockRate == AUDIO_CLOCK_HZ:
            return codec
    return None


def answer_sdp(offer: Offer, local: Local, *, session_id: int) -> str:
    """The answer: every m-line of the offer in its order, those we don't take with port 0."""
    session = SessionDescription()
    session.origin = f"- {session_id} 1 IN IP4 127.0.0.1"
    session.group.append(GroupDescription(semantic="BUNDLE", items=[line.mid for line in offer.lines]))
    lines = {line.index: line for line in offer.lines}
    for index, offered in enumerate(offer.media):
        line = lines.get(index)
        session.media.append(
            decline(offered, local.ice, local.dtls, offer.remote.dtls_role)
            if line is None
            else _accepted(line, offered, offer, local)
        )
    return str(session)


def _accepted(line: Line, offered: MediaDescription, offer: Offer, local: Local) -> MediaDescription:
    codecs = [line.codec] if line.rtx is None else [line.codec, line.rtx]
    media = MediaDescription(
        kind=offered.kind, port=9, profile=offered.profile, fmt=[c.payloadType for c in codecs]
    )
    media.host = "0.0.0.0"
    media.direction = "recvonly"
    media.rtp.muxId = line.mid
    media.rtcp_port, media.rtcp_host, media.rtcp_mux = 9, "0.0.0.0", True
    line.codec.rtcpFeedback = [f for f in line.codec.rtcpFeedback if (f.type, f.parameter) in _FEEDBACK]
    media.rtp.codecs = codecs
    media.rtp.headerExtensions = [
        RTCRtpHeaderExtensionParameters(id=number, uri=uri) for uri, number in line.extensions.items()
    ]
    media.ice = local.ice
    media.ice_candidates = local.candidates
    media.ice_candidates_complete = True
    media.dtls = RTCDtlsParameters(fingerprints=local.dtls.fingerprints, role=offer.remote.dtls_role)
    if local.candidates:
        media.host, media.port = local.candidates[0].ip, local.candidates[0].port
    return media
