"""What a publisher says by RTMP, and what it is answered: handshake, commands, then media."""

import secrets

from server.gateway.publish import Line, Malformed
from server.gateway.publish.rtmp import amf
from server.gateway.publish.rtmp.chunks import (
    AUDIO,
    LARGEST_WORD_BYTES,
    VIDEO,
    ChunkReader,
    RtmpMessage,
    control,
    write_message,
)
from server.gateway.publish.rtmp.flv import SCRIPT, FlvPublication, script_data, tag
from server.wire.urls import publish_path

# A key frame of 1080p at 100 Mbit/s has about one megabyte.
LARGEST_MEDIA_BYTES = 4 << 20

_HANDSHAKE_BYTES = 1536
_VERSION = 3
_ACK, _USER_CONTROL, _WINDOW, _BANDWIDTH = 3, 4, 5, 6
_AMF3_DATA, _AMF3_COMMAND, _AMF0_DATA, _AMF0_COMMAND = 15, 17, 18, 20
_PING, _PONG = 6, 7
_WINDOW_BYTES = 2_500_000
_MEDIA_STREAM = 1
_WORDS = 3  # the chunk stream of our answers


class RtmpDialogue:
    def __init__(self, line: Line) -> None:
        self._line = line
        self._greeting: bytearray | None = bytearray()  # None: the handshake is done
        self._greeted = False  # our side of it
        self._chunks = ChunkReader(LARGEST_WORD_BYTES)
        self._app: str | None = None
        self._publication: FlvPublication | None = None
        self._over = False
        self._window = _WINDOW_BYTES
        self._received = self._acknowledged = 0

    def feed(self, data: bytes) -> None:
        """Raises Malformed."""
        self._acknowledge(len(data))
        if self._greeting is not None:
            data = self._greet(data)
        if self._greeting is not None:
            return
        for message in self._chunks.feed(data):
            self._hear(message)
            if self._over:
                return

    def _greet(self, data: bytes) -> bytes:
        """The handshake; returns what came behind it."""
        assert self._greeting is not None
        self._greeting += data
        if self._greeting[:1] not in (b"", bytes([_VERSION])):
            raise Malformed("no handshake of RTMP")
        if not self._greeted and len(self._greeting) > _HANDSHAKE_BYTES:
            self._greeted = True
            # Zeros behind the time say that no digest is meant.
            ours = bytes(8) + secrets.token_bytes(_HANDSHAKE_BYTES - 8)
            theirs = bytes(self._greeting[1 : 1 + _HANDSHAKE_BYTES])
            self._line.write(bytes([_VERSION]) + ours + theirs)
        if len(self._greeting) < 1 + 2 * _HANDSHAKE_BYTES:
            return b""
        rest = bytes(self._greeting[1 + 2 * _HANDSHAKE_BYTES :])
        self._greeting = None
        return rest

    def _acknowledge(self, size: int) -> None:
        self._received += size
        if self._received - self._acknowledged >= self._window and self._greeting is None:
            self._acknowledged = self._received
            self._line.write(control(_ACK, self._received & 0xFFFFFFFF))

    def _hear(self, message: RtmpMessage) -> None:
        kind, payload = message.type, message.payload
        if kind in (AUDIO, VIDEO):
            self._media(kind, message.time_ms, payload)
        elif kind == _AMF0_DATA:
            self._media(SCRIPT, message.time_ms, script_data(payload))
        elif kind == _AMF3_DATA:
            self._media(SCRIPT, message.time_ms, script_data(payload[1:]))
        elif kind == _AMF0_COMMAND:
            self._command(payload)
        elif kind == _AMF3_COMMAND:  # a byte, then AMF0
            self._command(payload[1:])
        elif kind == _WINDOW:
            self._window = max(int.from_bytes(payload[:4]), 1)
        elif kind == _USER_CONTROL and payload[:2] == _PING.to_bytes(2):
            self._line.write(write_message(2, _USER_CONTROL, 0, _PONG.to_bytes(2) + payload[2:6]))

    def _media(self, kind: int, time_ms: int, payload: bytes) -> None:
        if self._publication is None:
            if kind == SCRIPT:
                return
            raise Malformed("media before anything is published")
        piece = self._publication.add(kind, time_ms, payload)
        self._line.push(tag(kind, time_ms, payload), piece, picture=kind == VIDEO)

    def _command(self, payload: bytes) -> None:
        match amf.decode(payload):
            case ["connect", float() as number, dict() as asked, *_] if self._app is None:
                self._connect(number, asked)
            case ["createStream", float() as number, *_]:
                self._answer("_result", number, None, float(_MEDIA_STREAM))
            case ["releaseStream" | "FCPublish", float() as number, *_]:
                self._answer("_result", number, None, None)
            case ["publish", float(), _, str() as name, *_] if self._app is not None:
                self._publish(name)
            case ["FCUnpublish" | "deleteStream" | "closeStream", *_] if self._publication is not None:
                self._end("the publisher has ended")
            case ["play" | "play2", *_]:
                self._refuse("NetStream.Play.Failed", "nothing is played here")

    def _connect(self, number: float, asked: dict[str, amf.Value]) -> None:
        app = asked.get("app")
        self._app = app if isinstance(app, str) else ""
        self._line.write(control(_WINDOW, _WINDOW_BYTES))
        self._line.write(write_message(2, _BANDWIDTH, 0, _WINDOW_BYTES.to_bytes(4) + b"\x02"))
        server: amf.Value = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0}
        status = _status("status", "NetConnection.Connect.Success", "connected")
        self._answer("_result", number, server, {**status, "objectEncoding": 0.0})

    def _publish(self, name: str) -> None:
        if self._publication is not None:
            raise Malformed("it publishes twice")
        publication = FlvPublication()
        assert self._app is not None
        path = f"{self._app.strip('/')}/{name.lstrip('/')}"  # encoders are told "rtmp://host/app/" as well
        match self._line.publish(publish_path(path), publication):
            case "accepted":
                self._publication = publication
                self._chunks.largest = LARGEST_MEDIA_BYTES
                self._status("status", "NetStream.Publish.Start", "publishing")
            case "busy":
                self._refuse("NetStream.Publish.BadName", "somebody else publishes there")
            case "denied":
                self._refuse("NetStream.Publish.Denied", "no such name, or a wrong key")

    def _refuse(self, code: str, why: str) -> None:
        self._status("error", code, why)
        self._end(why)

    def _end(self, reason: str) -> None:
        self._over = True
        self._line.hang_up(reason)

    def _status(self, level: str, code: str, text: str) -> None:
        payload = amf.encode("onStatus", 0.0, None, _status(level, code, text))
        self._line.write(write_message(_WORDS, _AMF0_COMMAND, _MEDIA_STREAM, payload))

    def _answer(self, name: str, number: float, *values: amf.Value) -> None:
        payload = amf.encode(name, number, *values)
        self._line.write(write_message(_WORDS, _AMF0_COMMAND, 0, payload))


def _status(level: str, code: str, text: str) -> dict[str, amf.Value]:
    return {"level": level, "code": code, "description": text}
