"""What a publisher sends on an RTSP connection: requests, and interleaved packets between them (RFC 2326)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from server.gateway.publish import Malformed

LARGEST_HEAD_BYTES, LARGEST_BODY_BYTES = 1 << 14, 1 << 16
_MAGIC = 0x24  # "$"
_FRAME_HEADER_BYTES = 4
_FIRST_LINE = re.compile(rb"([A-Z_]{3,32}) (\S{1,4096}) RTSP/\d\.\d")
_MOST_HEADERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspRequest:
    """Header names are in lower case."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Frames:
    """Whole interleaved packets as they lay on the connection, each behind its header of four bytes."""

    data: bytes


class RtspReader:
    """What is kept until it is whole is bounded by the largest request, or packet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[RtspRequest | Frames]:
        """What is whole now. Raises Malformed."""
        self._buffer += data
        while self._buffer:
            if self._buffer[0] == _MAGIC:
                end = self._end_of_frames()
                if not end:
                    return
                frames = bytes(self._buffer[:end])
                del self._buffer[:end]
                yield Frames(frames)
            else:
                request = self._request()
                if request is None:
                    return
                yield request

    def _end_of_frames(self) -> int:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _FRAME_HEADER_BYTES and buffer[at] == _MAGIC:
            end = at + _FRAME_HEADER_BYTES + (buffer[at + 2] << 8 | buffer[at + 3])
            if end > len(buffer):
                break
            at = end
        return at

    def _request(self) -> RtspRequest | None:
        while self._buffer[:2] == b"\r\n":  # some send empty lines between requests
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, LARGEST_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= LARGEST_HEAD_BYTES:
                raise Malformed("a request that is too long")
            return None
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        found = _FIRST_LINE.fullmatch(first)
        if found is None or len(lines) > _MOST_HEADERS:
            raise Malformed("no request of RTSP")
        headers = dict(map(_header, lines))
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > LARGEST_BODY_BYTES:
            raise Malformed("a body that is too long")
        body_end = end + 4 + int(length)
        if body_end > len(self._buffer):
            return None
        body = bytes(self._buffer[end + 4 : body_end])
        del self._buffer[:body_end]
        return RtspRequest(
            method=found[1].decode(), url=found[2].decode(errors="replace"), headers=headers, body=body
        )


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.decode(errors="replace").partition(":")
    if not colon:
        raise Malformed("a header without a name")
    return name.strip().lower(), value.strip()


def answer(request: RtspRequest, status: str, headers: dict[str, str] | None = None) -> bytes:
    """`status` is a code and its words."""
    cseq = request.headers.get("cseq", "0")
    lines = [f"RTSP/1.0 {status}", f"CSeq: {cseq[:32]}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode()
