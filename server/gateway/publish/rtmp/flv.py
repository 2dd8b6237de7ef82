"""A publication as FLV: RTMP's messages as tags, and what a decoder has to know before a key frame.

Adobe's Video File Format 10.1, and Enhanced RTMP.
"""

from server.gateway.publish import Malformed
from server.gateway.publish.rtmp.chunks import AUDIO, VIDEO
from server.wire.messages import PieceKind, PublishedFormat

SCRIPT = 18
_SET_DATA_FRAME = b"\x02\0\x0d@setDataFrame"
_METADATA = b"\x02\0\x0aonMetaData"
# Of what is kept for who begins in the middle: a decoder's configuration has some hundred bytes.
_LARGEST_HEADER_BYTES, _MOST_HEADERS = 1 << 16, 8

_AVC, _HEVC, _AAC, _EX_AUDIO = 7, 12, 10, 9
_SEQUENCE_START, _CODED, _CODED_X, _MULTITRACK, _MOD_EX = 0, 1, 3, 5, 7
_VIDEO_MULTITRACK = 6
_INFO_FRAME = 5  # a command to the decoder, no picture


class FlvPublication:
    """What one publisher sends. `tag` makes a tag of each message."""

    format: PublishedFormat = "flv"
    description = b""

    def __init__(self) -> None:
        self._headers: dict[tuple[int, int], bytes] = {}  # by type and track
        self._metadata = b""
        self._time_ms = 0  # of the last message
        self._has_video = False

    def prelude(self) -> bytes:
        """The file's header. It promises what the metadata do, so that libav waits for no other tracks."""
        flags = (b"audiocodecid" in self._metadata) << 2 | (b"videocodecid" in self._metadata)
        return b"FLV\x01" + bytes([flags or 5]) + b"\0\0\0\x09" + bytes(4)

    def headers(self) -> bytes:
        """The tags that a decoder has to know before it begins with the last message."""
        kept = [(SCRIPT, self._metadata)] if self._metadata else []
        kept += [(kind, payload) for (kind, _), payload in self._headers.items()]
        return b"".join(tag(kind, self._time_ms, payload) for kind, payload in kept)

    def add(self, kind: int, time_ms: int, payload: bytes) -> PieceKind:
        """What the message is to a decoder; what has to be known later is kept. Raises Malformed."""
        self._time_ms = time_ms
        match kind:
            case _ if kind == SCRIPT:
                if not payload.startswith(_METADATA):
                    return "rest"
                self._metadata = payload
                return "header"
            case _ if kind == VIDEO:
                self._has_video = self._has_video or bool(payload)
                return self._video(payload)
            case _:
                return self._audio(payload)

    def _video(self, payload: bytes) -> PieceKind:
        first = payload[0] if payload else 0
        frame_type = first >> 4 & 7
        if first & 0x80:
            packet_type, track = _enhanced(payload, _VIDEO_MULTITRACK)
            if packet_type == _SEQUENCE_START:
                return self._keep_header(VIDEO, track, payload)
            coded = packet_type in (_CODED, _CODED_X)
        else:
            if first & 15 in (_AVC, _HEVC) and payload[1:2] == b"\0":
                return self._keep_header(VIDEO, 0, payload)
            coded = frame_type != _INFO_FRAME
        return "start" if coded and frame_type == 1 else "rest"

    def _audio(self, payload: bytes) -> PieceKind:
        codec = payload[0] >> 4 if payload else 0
        if codec == _AAC and payload[1:2] == b"\0":
            return self._keep_header(AUDIO, 0, payload)
        if codec == _EX_AUDIO:
            packet_type, track = _enhanced(payload, _MULTITRACK)
            if packet_type == _SEQUENCE_START:
                return self._keep_header(AUDIO, track, payload)
        return "rest" if self._has_video else "start"

    def _keep_header(self, kind: int, track: int, payload: bytes) -> PieceKind:
        if len(payload) > _LARGEST_HEADER_BYTES:
            raise Malformed("a codec configuration that is too long")
        if (kind, track) not in self._headers and len(self._headers) >= _MOST_HEADERS:
            raise Malformed("too many tracks")
        self._headers[kind, track] = payload
        return "header"


def _enhanced(payload: bytes, multitrack: int) -> tuple[int, int]:
    """Packet type and track of an Enhanced RTMP message, whatever modifiers lie in front of it."""
    packet_type, at = payload[0] & 15, 1
    while packet_type == _MOD_EX and at < len(payload):
        size = payload[at] + 1
        at += 1
        if size == 256:
            size = int.from_bytes(payload[at : at + 2]) + 1
            at += 2
        at += size
        packet_type = payload[at] & 15 if at < len(payload) else _MOD_EX
        at += 1
    if packet_type != multitrack or at >= len(payload):
        return packet_type, 0
    one_codec = payload[at] >> 4 != 2  # else each track names its own
    track_at = at + 5 if one_codec else at + 1
    return payload[at] & 15, payload[track_at] if track_at < len(payload) else 0


def script_data(payload: bytes) -> bytes:
    """What the script tag of a data message holds: without the command that RTMP puts in front."""
    return payload.removeprefix(_SET_DATA_FRAME)


def tag(kind: int, time_ms: int, payload: bytes) -> bytes:
    size = len(payload)
    time = (time_ms & 0xFFFFFF).to_bytes(3) + bytes([time_ms >> 24 & 0xFF])
    return b"".join((bytes([kind]), size.to_bytes(3), time, bytes(3), payload, (size + 11).to_bytes(4)))
