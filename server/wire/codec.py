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
_DECODER = msgspec.msgpack.Decoder(
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


class ProtocolError(Exception):
    """The other side sent what is no message."""


def encode(message: Message) -> bytearray:
    data = bytearray(_LENGTH.size)
    _ENCODER.encode_into(message, data, _LENGTH.size)
    _LENGTH.pack_into(data, 0, len(data) - _LENGTH.size)
    return data


class Decoder:
    """Turns bytes as they come into the messages that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises ProtocolError on a length above the limit, and on what is no message."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(view, start)
                if size > MAX_MESSAGE_BYTES:
                    raise ProtocolError(f"message of {size} bytes is above the limit, {MAX_MESSAGE_BYTES}")
                end = start + _LENGTH.size + size
                if end > len(view):
                    break
                with view[start + _LENGTH.size : end] as body:
                    messages.append(_decode(body))
                start = end
        del self._buffer[:start]
        return messages


def _decode(body: memoryview) -> Message:
    try:
        message: Message = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolError(f"no message: {exc}") from exc
    return message
