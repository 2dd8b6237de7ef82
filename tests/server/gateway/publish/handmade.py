"""RTMP and RTSP as a client writes them by hand, and a door to try them at."""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from server.gateway.limits.refusals import Refusals
from server.gateway.publish.desk import Desk
from server.gateway.publish.doors import Doors
from server.settings import Limits
from server.wire.messages import Message, Published, PublishedData, PublisherGone
from server.wire.urls import PublishProtocol, publish_address
from tests.ports import free_port
from tests.server.gateway.scripted_gateway import until


def text(value: str) -> bytes:
    return struct.pack("!BH", 2, len(value)) + value.encode()


def number(value: float) -> bytes:
    return struct.pack("!Bd", 0, value)


def members(**values: str) -> bytes:
    pairs = (struct.pack("!H", len(name)) + name.encode() + text(value) for name, value in values.items())
    return b"\3" + b"".join(pairs) + b"\0\0\x09"


def chunks(
    kind: int, payload: bytes, *, at: int = 4, time_ms: int = 0, stream: int = 1, size: int = 128
) -> bytes:
    """One message in chunks of that size, the first with a whole header."""
    late = time_ms >= 0xFFFFFF
    long_time = struct.pack("!I", time_ms) if late else b""
    header = bytes([at]) + (b"\xff\xff\xff" if late else time_ms.to_bytes(3, "big"))
    header += len(payload).to_bytes(3, "big") + bytes([kind]) + struct.pack("<I", stream) + long_time
    parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
    return header + (bytes([0xC0 | at]) + long_time).join(parts)


def command(name: str, transaction: float, *values: bytes) -> bytes:
    return chunks(20, text(name) + number(transaction) + b"".join(values), at=3, stream=0)


HANDSHAKE = b"\3" + bytes(1536) + bytes(1536)
NULL = b"\5"


def publishing(app: str, name: str) -> bytes:
    """Everything that a client sends until it publishes, without waiting for an answer."""
    return (
        HANDSHAKE
        + command("connect", 1, members(app=app, tcUrl=f"rtmp://127.0.0.1/{app}"))
        + command("releaseStream", 2, NULL, text(name))
        + command("FCPublish", 3, NULL, text(name))
        + command("createStream", 4, NULL)
        + command("publish", 5, NULL, text(name), text("live"))
    )


METADATA = text("@setDataFrame") + text("onMetaData") + members(videocodecid="avc1", audiocodecid="mp4a")
SEQUENCE_HEADER = b"\x17\0\0\0\0" + b"avcC"
KEY_FRAME = b"\x17\1\0\0\0" + b"k" * 300
FRAME = b"\x27\1\0\0\0" + b"p" * 200


SDP = b"""v=0\r
o=- 0 0 IN IP4 127.0.0.1\r
s=-\r
c=IN IP4 127.0.0.1\r
t=0 0\r
a=control:rtsp://127.0.0.1/live/key\r
m=video 0 RTP/AVP 96\r
a=rtpmap:96 H264/90000\r
a=control:streamid=0\r
m=audio 0 RTP/AVP 97\r
a=rtpmap:97 MPEG4-GENERIC/44100/1\r
a=control:streamid=1\r
"""


def request(method: str, url: str, cseq: int = 1, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {url} RTSP/1.0", f"CSeq: {cseq}", *(f"{k}: {v}" for k, v in headers.items())]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def frame(channel: int, data: bytes) -> bytes:
    return struct.pack("!BBH", 0x24, channel, len(data)) + data


@dataclass
class Worker:
    """What a stream's desk sends to its worker. `slow`: it takes nothing that is published."""

    desk: Desk
    messages: list[Message] = field(default_factory=list)
    slow: bool = False
    drops: int = 0

    def send(self, message: Message) -> bool:
        if self.slow and isinstance(message, PublishedData):
            return False
        self.messages.append(message)
        return True

    def count(self, pictures: int) -> None:
        self.drops += pictures

    @property
    def data(self) -> bytes:
        return b"".join(m.data for m in self.messages if isinstance(m, PublishedData))

    @property
    def published(self) -> list[Published]:
        return [m for m in self.messages if isinstance(m, Published)]

    @property
    def gone(self) -> list[str]:
        return [m.reason for m in self.messages if isinstance(m, PublisherGone)]


@dataclass
class DoorUnderTest:
    protocol: PublishProtocol
    port: int
    doors: Doors
    refused: Counter[str]
    workers: dict[str, Worker] = field(default_factory=dict)

    def add(self, path: str, *, timeout_s: float = 30.0) -> Worker:
        """A stream at that path, whose worker waits."""
        worker: Worker = Worker(None)  # type: ignore[arg-type]
        worker.desk = Desk(path, timeout_s=timeout_s, override=False, send=worker.send, on_drop=worker.count)
        self.doors.enter(self.address(path), worker.desk)
        worker.desk.await_publisher(1)
        self.workers[path] = worker
        return worker

    def address(self, path: str):
        address = publish_address(
            f"{self.protocol}://127.0.0.1:{self.port}/{path}{'&' if '?' in path else '?'}listen=1"
        )
        assert address is not None
        return address

    def remove(self, path: str) -> None:
        worker = self.workers.pop(path)
        worker.desk.close()
        self.doors.leave(self.address(path), worker.desk)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async def connected():
            try:
                return await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return None

        return await until(connected, "the port is open")

    async def say(self, *data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        writer.writelines(data)
        return reader, writer


@contextlib.asynccontextmanager
async def door(protocol: PublishProtocol = "rtmp", **limits: float) -> AsyncIterator[DoorUnderTest]:
    refused: Counter[str] = Counter()
    doors = Doors(Limits(**limits), Refusals(lambda reason: refused.update([reason])))
    under_test = DoorUnderTest(protocol, free_port(), doors, refused)
    try:
        yield under_test
    finally:
        for path in list(under_test.workers):
            under_test.remove(path)
        await asyncio.sleep(0)


async def read_until(reader: asyncio.StreamReader, what: bytes) -> bytes:
    """What came up to and with it."""
    return await asyncio.wait_for(reader.readuntil(what), 30)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 30)
    return b""
