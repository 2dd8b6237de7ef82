"""A WHIP publisher of numbered pictures, which makes key frames only when asked, and may lose packets."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.rtp import RtpPacket, is_rtcp

from loadtest.numbered_source import draw, read
from loadtest.whip import WhipPublisher
from server.wire.messages import Published, PublishedData, PublisherGone
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.published import PublishedSource
from server.worker.ingest.source import PublisherLost
from tests.server.gateway.scripted_gateway import Gateway

WIDTH, HEIGHT, FPS = 160, 96, 20
# Of an RTP packet's number, and whether it is sent again: is it lost?
Loses = Callable[[int, bool], bool]


class Camera(MediaStreamTrack):
    kind = "video"

    def __init__(self, noise: int = 0) -> None:
        super().__init__()
        self._encoder = av.CodecContext.create("libx264", "w")
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        self._encoder.time_base = Fraction(1, FPS)
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "100000", "forced-idr": "1"}
        self._encoder.options = options
        self._noise = noise
        self._numbers = itertools.count()
        self._begun_s = time.monotonic()
        self.asked = 0
        self._key = True

    def ask(self) -> None:
        self.asked += 1
        self._key = True

    async def recv(self) -> av.Packet:
        number = next(self._numbers)
        await asyncio.sleep(max(0.0, self._begun_s + number / FPS - time.monotonic()))
        chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
        if self._noise:
            chroma = np.random.default_rng(number).integers(
                128 - self._noise, 128 + self._noise, chroma.shape, np.uint8
            )
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([draw(number, WIDTH, HEIGHT), chroma]), format="yuv420p"
        )
        frame.pts = number
        if self._key:
            frame.pict_type, self._key = av.video.frame.PictureType.I, False
        (packet,) = self._encoder.encode(frame)
        return packet


@asynccontextmanager
async def publishing(
    served: Gateway, *more: MediaStreamTrack, noise: int = 0, loses: Loses = lambda number, again: False
) -> AsyncIterator[Camera]:
    camera = Camera(noise)
    publisher = WhipPublisher(f"{served.base}/whip/demo", camera, *more)
    sender = publisher.peer.getSenders()[0]
    vars(sender)["_send_keyframe"] = camera.ask
    transport = sender.transport
    send, first, sent = transport._send_rtp, [-1], set[int]()

    async def lossy(data: bytes) -> None:
        if not is_rtcp(data):
            packet = RtpPacket.parse(data)
            if packet.ssrc == sender._ssrc:
                first[0] = packet.sequence_number if first[0] < 0 else first[0]
                sent.add(packet.sequence_number)
                if loses((packet.sequence_number - first[0]) % (1 << 16), False):
                    return
            elif packet.ssrc == sender._rtx_ssrc:
                number = int.from_bytes(packet.payload[:2])
                if loses((number - first[0]) % (1 << 16), True):
                    return
        await send(data)

    vars(transport)["_send_rtp"] = lossy
    try:
        await publisher.join()
        yield camera
    finally:
        await publisher.leave()


class Reader:
    """What the scripted worker gets, opened and decoded as a worker does, in a thread."""

    def __init__(self, served: Gateway, stop: threading.Event) -> None:
        self._worker = served.worker
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self.numbers: list[int | None] = []
        self.sizes: set[tuple[int, int]] = set()
        self.held_s: list[float] = []  # from a frame's arrival until it was demuxed
        self.sound = 0
        self.ended = ""
        self.inbox = PublisherInbox(
            send=lambda message: self._loop.call_soon_threadsafe(self._worker.say, message),
            on_drop=lambda: None,
        )
        self._source = PublishedSource("whip:", self.inbox, max_size=(1920, 1080), timeout_s=20.0, stop=stop)

    async def pump(self) -> None:
        """Passes on what the gateway sends, as the worker's control thread does."""
        at = 0
        while True:
            for message in self._worker.received[at:]:
                at += 1
                if isinstance(message, Published | PublishedData | PublisherGone):
                    self.inbox.put(message)
            await asyncio.sleep(0.005)

    def run(self) -> None:
        try:
            decoder = self._source.open().video
            for arrival in self._source.arrivals():
                if not arrival.video:
                    self.sound += 1
                    continue
                self.held_s.append((arrival.times.demuxed_ns - arrival.times.arrival_ns) / 1e9)
                if arrival.packet.size < 10:  # the delimiter behind the last picture, where it ends
                    continue
                for frame in decoder.decode(arrival.packet):
                    self.sizes.add((frame.width, frame.height))
                    self.numbers.append(read(frame.to_ndarray(format="gray")))
        except PublisherLost as exc:
            self.ended = str(exc)
        finally:
            self._source.close()


@asynccontextmanager
async def reading(served: Gateway) -> AsyncIterator[Reader]:
    stop = threading.Event()
    reader = Reader(served, stop)
    pump = asyncio.create_task(reader.pump())
    running = asyncio.create_task(asyncio.to_thread(reader.run))
    try:
        yield reader
    finally:
        stop.set()
        await asyncio.wait([running], timeout=30)
        pump.cancel()
        running.result()
