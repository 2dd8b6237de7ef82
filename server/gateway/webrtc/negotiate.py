"""From a viewer's SDP offer to the lines we answer: which codec, rendition and transport (RFC 9429)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aiortc.rtcdtlstransport import RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceCandidate, RTCIceParameters
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.sdp import (
    GroupDescription,
    MediaDescription,
    SessionDescription,
    SsrcDescription,
    candidate_from_sdp,
    grouplines,
)

from server.gateway.errors import InvalidOffer
from server.gateway.webrtc.feedback import TRANSPORT_CC_URI
from server.gateway.webrtc.profile import ProfileLevel
from server.wire.messages import AUDIO_CLOCK_HZ, SOURCE, UPSCALED, VIDEO_CLOCK_HZ, Rendition
from server.wire.renditions import in_vp8, picture_of

MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"
SEND_TIME_URI = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
PLAYOUT_DELAY_URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
MAX_LINES = 8
_MOST_ICE_CHARS = 256
_FEEDBACK = (
    RTCRtcpFeedback(type="nack"),
    RTCRtcpFeedback(type="nack", parameter="pli"),
    RTCRtcpFeedback(type="transport-cc"),
    RTCRtcpFeedback(type="goog-remb"),
)
# Of pictures; sound has the mid alone.
_VIDEO_EXTENSIONS = (TRANSPORT_CC_URI, SEND_TIME_URI, PLAYOUT_DELAY_URI)
# Best first, where what is sent isn't known or nothing offered fits: whatever is answered, High is what every
# decoder of the last decade plays.
_H264_PROFILES = ("64", "4d", "42")
_UNSAID = ProfileLevel(idc=0x42, constraints=0xE0, level=31)  # what browsers take the absence of a word for


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One m-line that carries media to the viewer. `rendition` is None for audio."""

    index: int
    mid: str
    kind: str
    rendition: Rendition | None
    clock_hz: int
    codec: RTCRtpCodecParameters
    rtx: RTCRtpCodecParameters | None
    extensions: Mapping[str, int]  # the ids of the header extensions that packets carry, by URI (RFC 8285)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How a client is reached, by its offer."""

    ice: RTCIceParameters
    ice_candidates: tuple[RTCIceCandidate, ...]
    ice_candidates_complete: bool
    dtls: RTCDtlsParameters
    # The client opens DTLS wherever it leaves us the choice: as its client we would offer ECDSA ciphers
    # only, and GStreamer's certificate is RSA.
    dtls_role: str  # ours: "server" or "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A viewer's offer, understood. All lines share one transport; the other m-lines are declined."""

    remote: Remote
    media: tuple[MediaDescription, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The synchronisation sources of one line."""

    ssrc: int
    rtx_ssrc: int
    cname: str
    timestamp_origin: int  # that of all lines of a viewer: pictures of one moment have one timestamp


def parse_offer(
    sdp: str,
    sent: Mapping[Rendition, ProfileLevel] | None = None,
    renditions: Sequence[Rendition] = (UPSCALED, SOURCE),
) -> Offer:
    """`sent` is what the renditions are encoded as in H.264, where it is known. The first line of video gets
    the first of `renditions`, the next one the next; in VP8 where it has no H.264.

    Raises InvalidOffer where this is no SDP, or no offer of a viewer we could serve.
    """
    session = parse_session(sdp)
    lines = tuple(_lines(session, sent or {}, renditions))
    if not any(line.rendition is not None for line in lines):
        raise InvalidOffer("the offer has no video m-line with H264/90000 or VP8/90000 that may receive")
    return Offer(media=tuple(session.media), lines=lines, remote=parse_remote(session.media[lines[0].index]))


def parse_session(sdp: str) -> SessionDescription:
    """Raises InvalidOffer where this is no SDP, or has no m-line or too many."""
    try:
        session = SessionDescription.parse(sdp)
    except (
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        StopIteration,
        TypeError,
        ValueError,
    ) as exc:
        raise InvalidOffer("the offer is no valid SDP") from exc
    if not session.media:
        raise InvalidOffer("the offer has no m-line")
    if len(session.media) > MAX_LINES:
        raise InvalidOffer(f"the offer has {len(session.media)} m-lines; {MAX_LINES} are the limit")
    for media, (_, *attributes) in zip(session.media, grouplines(sdp)[1], strict=True):
        if media.port == 0 and any(line.strip() == "a=bundle-only" for line in attributes):
            _unbundle(media, session)
    return session


def _unbundle(media: MediaDescription, session: SessionDescription) -> None:
    """An m-line that is offered within a bundle alone, as by the policy "max-bundle", has port 0, and may
    leave its transport to the bundle's first line (RFC 9143)."""
    media.port = 9
    group = next((g.items for g in session.group if media.rtp.muxId in g.items), [])
    first = next((m for m in session.media if group and m.rtp.muxId == group[0]), media)
    if media.ice is None or not media.ice.usernameFragment:
        media.ice, media.dtls = first.ice, first.dtls
        media.ice_candidates = first.ice_candidates
        media.ice_candidates_complete = first.ice_candidates_complete


def parse_remote(media: MediaDescription) -> Remote:
    """The transport of that m-line. Raises InvalidOffer where it is none for WebRTC."""
    if media.ice is None or not media.ice.usernameFragment or not media.ice.password:
        raise InvalidOffer("the offer lacks ice-ufrag or ice-pwd")
    for name, text, least in (
        ("ice-ufrag", media.ice.usernameFragment, 4),
        ("ice-pwd", media.ice.password, 22),
    ):
        # Of RFC 8839, 5.4. Each check that we send where the client says carries the first.
        if not least <= len(text) <= _MOST_ICE_CHARS:
            raise InvalidOffer(
                f"{name} has {len(text)} characters; it must have {least} to {_MOST_ICE_CHARS}"
            )
    if media.dtls is None or not media.dtls.fingerprints:
        raise InvalidOffer("the offer lacks a DTLS fingerprint or setup attribute")
    return Remote(
        ice=media.ice,
        ice_candidates=tuple(media.ice_candidates),
        ice_candidates_complete=media.ice_candidates_complete,
        dtls=media.dtls,
        dtls_role="client" if media.dtls.role == "server" else "server",
    )


def _lines(
    session: SessionDescription, sent: Mapping[Rendition, ProfileLevel], renditions: Sequence[Rendition]
) -> Iterator[Line]:
    left = iter(renditions)
    audio_taken = False
    usable = {
        index: codec
        for index, media in enumerate(session.media)
        if (codec := _choose(media, None)) and media.direction in (None, "recvonly", "sendrecv")
    }
    bundle = video_bundle(session, usable)
    for index, codec in usable.items():
        media = session.media[index]
        mid = media.rtp.muxId or str(index)
        if mid not in bundle:
            continue
        rendition = None
        if media.kind == "video":
            rendition = next(left, None)
            if rendition is None:
                continue
            codec = _choose(media, sent.get(rendition)) or codec
            if codec.name.lower() == "vp8":
                rendition = in_vp8(rendition)
        elif audio_taken:
            continue
        else:
            audio_taken = True
        known = (MID_URI, *_VIDEO_EXTENSIONS) if media.kind == "video" else (MID_URI,)
        extensions = {
            e.uri: e.id
            for e in media.rtp.headerExtensions
            if e.uri in known and 0 < e.id < 15 and (e.uri != MID_URI or len(mid.encode()) <= 16)
        }
        yield Line(
            index=index,
            mid=mid,
            kind=media.kind,
            rendition=rendition,
            clock_hz=VIDEO_CLOCK_HZ if media.kind == "video" else AUDIO_CLOCK_HZ,
            codec=codec,
            rtx=find_rtx(media, codec),
            extensions=extensions,
        )


def video_bundle(session: SessionDescription, usable: Iterable[int]) -> Sequence[int | str]:
    """The m-lines that share the transport of the first usable one of a picture: others would want transports
    of their own. Without such a line there is none."""
    for index in usable:
        mid = session.media[index].rtp.muxId or str(index)
        if session.media[index].kind == "video":
            bundles = (group.items for group in session.group if group.semantic == "BUNDLE")
            return next((items for items in bundles if mid in items), [mid])
    return []


def _choose(media: MediaDescription, sent: ProfileLevel | None) -> RTCRtpCodecParameters | None:
    """The codec of this line that we send, None where it has none."""
    if media.port == 0:
        return None
    if media.kind == "audio":
        opus = (c for c in media.rtp.codecs if c.name.lower() == "opus" and c.clockRate == AUDIO_CLOCK_HZ)
        return next(opus, None)
    if media.kind == "video":
        video = [codec for codec in media.rtp.codecs if codec.clockRate == VIDEO_CLOCK_HZ]
        h264 = [codec for codec in video if codec.name.lower() == "h264"]
        if h264:
            return _as_sent(min(h264, key=lambda codec: _h264_rank(codec, sent)), sent)
        return next((codec for codec in video if codec.name.lower() == "vp8"), None)
    return None


def _h264_rank(codec: RTCRtpCodecParameters, sent: ProfileLevel | None) -> tuple[bool, int, bool, int]:
    # Mode 0 has no fragments, so our packets break its word; but peers that leave the mode out take them.
    single_nal = str(codec.parameters.get("packetization-mode", "0")) != "1"
    offered = _profile_level(codec) or _UNSAID
    profile = f"{offered.idc:02x}"
    place = _H264_PROFILES.index(profile) if profile in _H264_PROFILES else len(_H264_PROFILES)
    if sent is None:
        return single_nal, 0, False, place
    distance = offered.distance(sent)
    return (
        single_nal,
        len(_H264_PROFILES) + 1 if distance is None else distance,
        offered.level < sent.level,
        place,
    )


def _profile_level(codec: RTCRtpCodecParameters) -> ProfileLevel | None:
    try:
        return ProfileLevel.parse(str(codec.parameters.get("profile-level-id", "")))
    except ValueError:
        return None


def _as_sent(codec: RTCRtpCodecParameters, sent: ProfileLevel | None) -> RTCRtpCodecParameters:
    """The codec with the level that is sent. Its profile is the offer's to say, and so is the highest level
    unless it allows asymmetry (RFC 6184, section 8.2.2)."""
    offered = _profile_level(codec)
    if offered is None or sent is None:
        return codec
    free = str(codec.parameters.get("level-asymmetry-allowed", "0")) == "1"
    level = sent.level if free else min(sent.level, offered.level)
    answered = str(replace(offered, level=level))
    return replace(codec, parameters={**codec.parameters, "profile-level-id": answered})


def find_rtx(media: MediaDescription, codec: RTCRtpCodecParameters) -> RTCRtpCodecParameters | None:
    """How that codec's packets are sent again (RFC 4588), where the line has it."""
    for other in media.rtp.codecs:
        if other.name.lower() == "rtx" and other.parameters.get("apt") == codec.payloadType:
            return other
    return None


def answer_sdp(
    offer: Offer,
    *,
    session_id: int,
    ice: RTCIceParameters,
    candidates: list[RTCIceCandidate],
    dtls: RTCDtlsParameters,
    sources: dict[str, Sources],
) -> str:
    """The answer: every m-line of the offer in its order, those we don't serve with port 0."""
    session = SessionDescription()
    session.origin = f"- {session_id} 1 IN IP4 127.0.0.1"
    session.group.append(GroupDescription(semantic="BUNDLE", items=[line.mid for line in offer.lines]))
    session.msid_semantic.append(GroupDescription(semantic="WMS", items=["*"]))
    lines = {line.index: line for line in offer.lines}
    first = next(line.rendition for line in offer.lines if line.rendition is not None)
    for index, offered in enumerate(offer.media):
        line = lines.get(index)
        if line is None:
            session.media.append(decline(offered, ice, dtls, offer.remote.dtls_role))
            continue
        answered = _accepted(line, offered.profile, sources[line.mid], first)
        answered.ice = ice
        answered.ice_candidates = candidates
        answered.ice_candidates_complete = True
        answered.dtls = RTCDtlsParameters(fingerprints=dtls.fingerprints, role=offer.remote.dtls_role)
        if candidates:
            answered.host, answered.port = candidates[0].ip, candidates[0].port
        session.media.append(answered)
    return str(session)


def _accepted(line: Line, profile: str, sources: Sources, first: Rendition) -> MediaDescription:
    codecs = [line.codec] if line.rtx is None else [line.codec, line.rtx]
    media = MediaDescription(kind=line.kind, port=9, profile=profile, fmt=[c.payloadType for c in codecs])
    media.host = "0.0.0.0"
    media.direction = "sendonly"
    # Sound belongs to the first picture, and is synchronised with it; the other one is a stream apart.
    media.msid = f"{picture_of(line.rendition or first)} {line.mid}"
    media.rtp.muxId = line.mid
    media.rtcp_port, media.rtcp_host, media.rtcp_mux = 9, "0.0.0.0", True
    line.codec.rtcpFeedback = [f for f in line.codec.rtcpFeedback if f in _FEEDBACK]
    media.rtp.codecs = codecs
    media.rtp.headerExtensions = [
        RTCRtpHeaderExtensionParameters(id=number, uri=uri) for uri, number in line.extensions.items()
    ]
    media.ssrc = [SsrcDescription(ssrc=sources.ssrc, cname=sources.cname)]
    if line.rtx is not None:
        media.ssrc.append(SsrcDescription(ssrc=sources.rtx_ssrc, cname=sources.cname))
        media.ssrc_group = [GroupDescription(semantic="FID", items=[sources.ssrc, sources.rtx_ssrc])]
    return media


def decline(
    offered: MediaDescription, ice: RTCIceParameters, dtls: RTCDtlsParameters, role: str
) -> MediaDescription:
    """The answer to an m-line that isn't used."""
    media = MediaDescription(kind=offered.kind, port=0, profile=offered.profile, fmt=offered.fmt)
    media.host = "0.0.0.0"
    media.direction = "inactive"
    media.rtp.muxId = offered.rtp.muxId
    # GStreamer 1.22 takes no answer in which a line has none of these, though nothing is sent by it.
    media.ice = ice
    media.dtls = RTCDtlsParameters(fingerprints=dtls.fingerprints, role=role)
    return media


def parse_fragment(text: str) -> tuple[str | None, list[RTCIceCandidate], bool]:
    """A trickled fragment (RFC 8840): its ufrag, the candidates, whether they are the last ones."""
    ufrag: str | None = None
    candidates: list[RTCIceCandidate] = []
    for line in text.splitlines():
        if match := re.match(r"a=ice-ufrag:(\S+)$", line):
            ufrag = match.group(1)
        elif line.startswith("a=candidate:"):
            try:
                candidates.append(candidate_from_sdp(line.removeprefix("a=candidate:")))
            except (AssertionError, IndexError, ValueError) as exc:
                raise InvalidOffer(f"{line[:80]!r} is no ICE candidate") from exc
    return ufrag, candidates, "a=end-of-candidates" in text
