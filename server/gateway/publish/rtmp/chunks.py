"""RTMP's chunk stream: messages out of the chunks that they come in, and into those that they go out in."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from server.gateway.publish import Malformed

SET_CHUNK_SIZE, ABORT, AUDIO, VIDEO = 1, 2, 8, 9
# Of a message that is neither sound nor picture; a publisher's longest is its metadata.
LARGEST_WORD_BYTES = 1 << 16

_DEFAULT_CHUNK_BYTES = 128
_MOST_CHUNK_STREAMS = 64  # publishers use about five
_HEADER_BYTES = (11, 7, 3, 0)
_U32 = struct.Struct("!I")
_WRAP = 0xFFFFFFFF


class RtmpMessage(NamedTuple):
    type: int
    stream: int
    time_ms: int  # modulo 2³²
    payload: bytes


class _ChunkStream:
    """What the next chunk of it needs not say again, and the message that isn't whole."""

    __slots__ = ("delta_ms", "length", "long_time", "payload", "stream", "time_ms", "type")

    def __init__(self) -> None:
        self.time_ms = self.delta_ms = 0
        self.length = self.type = self.stream = 0
        self.long_time = False
        self.payload = bytearray()


class ChunkReader:
    """`largest` bounds a message of sound or picture, in bytes. Of messages that aren't whole no more than
    three times that is kept."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._chunk_bytes = _DEFAULT_CHUNK_BYTES
        self._buffer = bytearray()
        self._streams: dict[int, _ChunkStream] = {}
        self._current = _ChunkStream()
        self._left = 0  # bytes that the current chunk still has
        self._kept = 0  # bytes of messages that aren't whole

    def feed(self, data: bytes) -> Iterator[RtmpMessage]:
        """The messages that are whole now, SetChunkSize and Abort obeyed. Raises Malformed."""
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        # A publisher's chunks may have no more than 128 bytes: this runs thousands of times a second.
        while at < end:
            if not self._left:
                body = self._header(buffer, at, end)
                if not body:
                    break
                at = body
            stream = self._current
            payload = stream.payload
            size = min(self._left, end - at)
            payload += buffer[at : at + size]
            at += size
            self._left -= size
            self._kept += size
            if len(payload) < stream.length:
                continue
            whole = bytes(payload)
            self._kept -= len(whole)
            payload.clear()
            if stream.type == SET_CHUNK_SIZE:
                self._set_chunk_bytes(whole)
            elif stream.type == ABORT:
                self._abort(whole)
            else:
                yield RtmpMessage(stream.type, stream.stream, stream.time_ms, whole)
        del buffer[:at]

    def _header(self, buffer: bytearray, at: int, end: int) -> int:
        """Where the chunk's body begins; 0 where its header isn't all there yet."""
        first = buffer[at]
        form, number, head = first >> 6, first & 63, at + 1
        if number < 2:
            head += number + 1
            if head > end:
                return 0
            number = buffer[at + 1] + 64 + (buffer[at + 2] << 8 if number else 0)
        stream = self._streams.get(number)
        if stream is None:
            stream = self._begin(number, form)
        body = head + _HEADER_BYTES[form]
        if body > end:
            return 0
        time_ms = 0
        long_time = stream.long_time
        if form < 3:
            time_ms = int.from_bytes(buffer[head : head + 3])
            long_time = time_ms == 0xFFFFFF  # then it is in four bytes that follow
        if long_time:
            body += 4
            if body > end:
                return 0
            time_ms = int.from_bytes(buffer[body - 4 : body])
        if form < 3:
            if stream.payload:
                raise Malformed("a message that begins within another")
            if form < 2:
                stream.length = int.from_bytes(buffer[head + 3 : head + 6])
                stream.type = buffer[head + 6]
            if form == 0:
                stream.stream = int.from_bytes(buffer[head + 7 : head + 11], "little")
                stream.time_ms = 0  # what follows is from there
            stream.delta_ms, stream.long_time = time_ms, long_time
        if self._kept > 2 * self.largest:
            raise Malformed("too much that isn't whole")
        if not stream.payload:
            self._check_length(stream)
            stream.time_ms = (stream.time_ms + stream.delta_ms) & _WRAP
        self._current = stream
        self._left = min(stream.length - len(stream.payload), self._chunk_bytes)
        return body

    def _begin(self, number: int, form: int) -> _ChunkStream:
        # Some begin a chunk stream by what is new since the message before: since nothing, then.
        if form == 3:
            raise Malformed("a chunk without a beginning")
        if len(self._streams) >= _MOST_CHUNK_STREAMS:
            raise Malformed("too many chunk streams")
        stream = self._streams[number] = _ChunkStream()
        return stream

    def _check_length(self, stream: _ChunkStream) -> None:
        largest = self.largest if stream.type in (AUDIO, VIDEO) else LARGEST_WORD_BYTES
        if stream.length > largest:
            raise Malformed("a message that is too long")

    def _set_chunk_bytes(self, payload: bytes) -> None:
        size = int.from_bytes(payload[:4])
        if len(payload) < 4 or not 0 < size < 1 << 31:
            raise Malformed("chunks of an impossible size")
        self._chunk_bytes = size

    def _abort(self, payload: bytes) -> None:
        stream = self._streams.get(int.from_bytes(payload[:4]))
        if stream is not None:
            self._kept -= len(stream.payload)
            stream.payload.clear()


def write_message(chunk_stream: int, kind: int, stream: int, payload: bytes) -> bytes:
    """A message in chunks of the size that every peer begins with; `chunk_stream` from 2 to 63."""
    header = bytes([chunk_stream]) + bytes(3) + len(payload).to_bytes(3) + bytes([kind])
    header += stream.to_bytes(4, "little")
    pieces = [payload[at : at + _DEFAULT_CHUNK_BYTES] for at in range(0, len(payload), _DEFAULT_CHUNK_BYTES)]
    return header + bytes([0xC0 | chunk_stream]).join(pieces)


def control(kind: int, value: int) -> bytes:
    """A protocol control message that holds one number."""
    return write_message(2, kind, 0, _U32.pack(value))
