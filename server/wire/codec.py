"""How messages lie on the socket between worker and gateway: a length of four bytes, then MessagePack.

No pickle: a worker parses hostile media, and the gateway must not run what it says.
"""

import struct

import msgspec

from server.wire.messages import (
    Alive,
    AudioPacket,
    AwaitPublisher,
    Dropped,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    Message,
    NeedKeyframe,
    Opened,
    PictureMissing,
    Prepare,
    Published,
    PublishedData,
    PublisherGone,
    Reconnecting,
    RequestKeyframe,
    SetLogLevel,
    Stepped,
    StepUp,
    Stop,
    VideoPacket,
    Watch,
    WorkerBroken,
    WorkerJob,
)

MAX_MESSAGE_BYTES = 64 << 20

_LENGTH = struct.Struct("!I")
_ENCODER = msgspec.msgpack.Encoder()
# What a worker and its gateway say.
WORKERS = (
    WorkerJob
    | Prepare
    | RequestKeyframe
    | Watch
    | StepUp
    | SetLogLevel
    | Published
    | PublishedData
    | PublisherGone
    | Stop
    | AwaitPublisher
    | NeedKeyframe
    | Opened
    | EngineLoad
    | VideoPacket
    | AudioPacket
    | Dropped
    | Reconnecting
    | PictureMissing
    | Stepped
    | JobImpossible
    | WorkerBroken
    | Alive
    | Heartbeat
)
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(WORKERS)


class ProtocolError(Exception):
    """The other side sent what is no message."""


def encode(message: Message) -> bytearray:
    data = bytearray(_LENGTH.size)
    _ENCODER.encode_into(message, data, _LENGTH.size)
    _LENGTH.pack_into(data, 0, len(data) - _LENGTH.size)
    return data


class Decoder:
    """Turns bytes as they come into the messages that are whole."""

    def __init__(self, of: msgspec.msgpack.Decoder[Message] = _DECODER) -> None:
        """`of`: which messages there may be."""
        self._of = of
        self._buffer = bytearray()
        self.most_bytes = MAX_MESSAGE_BYTES  # of one message

    def feed(self, data: bytes) -> list[Message]:
        """Raises ProtocolError on a length above the limit, and on what is no message."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(view, start)
                if size > self.most_bytes:
                    raise ProtocolError(f"message of {size} bytes is above the limit, {self.most_bytes}")
                end = start + _LENGTH.size + size
                if end > len(view):
                    break
                with view[start + _LENGTH.size : end] as body:
                    messages.append(self._decode(body))
                start = end
        del self._buffer[:start]
        return messages

    def _decode(self, body: memoryview) -> Message:
        try:
            return self._of.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ProtocolError(f"no message: {exc}") from exc
