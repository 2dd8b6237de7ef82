"""A real gateway on a free loopback port, its workers scripted: they encode a moving pattern in-process."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from fractions import Fraction

import aioice.ice
import av
import httpx
import numpy as np
import pytest
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from msgspec.structs import replace

from server.gateway.app import Gateway as App
from server.gateway.app import create_app
from server.gateway.limits.connections import Connections, guarded
from server.gateway.limits.refusals import Refusals
from server.gateway.placement.capacity import Capacity
from server.gateway.streams.kept import KeptStreams
from server.settings import Settings
from server.wire.codec import Decoder, encode
from server.wire.messages import (
    Alive,
    AudioFormat,
    AudioPacket,
    EngineFormat,
    Heartbeat,
    Message,
    Opened,
    OutputFormat,
    RequestKeyframe,
    SourceFormat,
    Stop,
    Trace,
    VideoPacket,
    Watch,
    WorkerJob,
)

FPS = 25
FRAME_TICKS = 90_000 // FPS
TIMEOUT_S = 60.0  # of a machine that is busy with other things


async def until(condition, what: str, timeout_s: float = TIMEOUT_S):
    """Waits for what `condition` returns (or the coroutine it makes) to be true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


class Encoder:
    """x264 as the worker uses it: no B-frames, no delay, SPS and PPS in front of every IDR."""

    def __init__(self, width: int, height: int, gop_s: float, noise_bps: int = 0) -> None:
        self.noise = np.random.default_rng(1) if noise_bps else None
        self.codec = av.CodecContext.create("libx264", "w")
        self.codec.width, self.codec.height = width, height
        self.codec.pix_fmt = "yuv420p"
        self.codec.time_base = Fraction(1, 90_000)
        self.codec.framerate = Fraction(FPS)
        self.codec.gop_size = round(gop_s * FPS)
        self.codec.options = {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1"}
        if noise_bps:
            self.codec.bit_rate = noise_bps
            self.codec.options |= {"maxrate": str(noise_bps), "bufsize": str(noise_bps // 2)}
        self.size = width, height
        self.force = False

    def encode(self, number: int, pts: int) -> tuple[bytes, bool]:
        width, height = self.size
        luma = (np.arange(width)[None, :] * 2 + np.arange(height)[:, None] + number * 4) % 200 + 20
        if self.noise is not None:
            luma = luma + self.noise.integers(-20, 20, luma.shape)
        frame = av.VideoFrame.from_ndarray(
            np.concatenate(
                [luma.astype(np.uint8).ravel(), np.full(width * height // 2, 128, np.uint8)]
            ).reshape(height * 3 // 2, width),
            format="yuv420p",
        )
        frame.pts = pts
        frame.time_base = self.codec.time_base
        frame.pict_type = av.video.frame.PictureType.I if self.force else av.video.frame.PictureType.NONE
        self.force = False
        (packet,) = self.codec.encode(frame)
        return bytes(packet), packet.is_keyframe


class Sound:
    """Silence, in 20 ms Opus packets and 1024-sample AAC access units."""

    def __init__(self) -> None:
        self.opus = self._codec("libopus", "s16", 960)
        self.aac = self._codec("aac", "fltp", 1024)

    @staticmethod
    def _codec(name: str, sample_format: str, samples: int):
        codec = av.CodecContext.create(name, "w")
        codec.sample_rate, codec.layout, codec.format = 48_000, "stereo", sample_format
        codec.open()
        return codec, sample_format, samples

    @property
    def format(self) -> AudioFormat:
        return AudioFormat(config=bytes(self.aac[0].extradata), rate_hz=48_000, channels=2)

    def packets(self, kind: str, pts: int) -> list[bytes]:
        codec, sample_format, samples = getattr(self, kind)
        frame = av.AudioFrame(format=sample_format, layout="stereo", samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48_000, pts, Fraction(1, 48_000)
        return [bytes(packet) for packet in codec.encode(frame)]


def opened(width: int = 160, height: int = 120, audio: AudioFormat | None = None, **engine) -> Opened:
    """What a worker says of itself; `engine` changes what upscales."""
    scripted = EngineFormat(model="pattern", backend="scripted", precision="int8", parity_db=60.5, scale=2)
    return Opened(
        source=SourceFormat(
            codec="h264",
            width=width // 2,
            height=height // 2,
            pixel_format="yuv420p",
            fps=float(FPS),
            sample_aspect_ratio=(1, 1),
            decoder="h264",
        ),
        output=OutputFormat(width=width, height=height, encoder="libx264", bitrate_bps=500_000, on_gpu=False),
        engine=replace(scripted, **engine),
        audio=audio,
    )


@dataclass
class Script:
    """What the workers of a placement do. A test changes it before the next worker starts."""

    width: int = 160
    height: int = 120
    gop_s: float = 2.0
    noise_bps: int = 0  # the upscaled picture is noisy, and takes that much
    audio: bool = True
    video_delay_s: float = 0.0  # how far the picture lags its timestamps, and the sound
    live: bool = True  # encodes and sends in real time; else the test says what is sent
    first: tuple[Message, ...] = ()
    refuse: str = ""


class ScriptedWorker:
    """A worker in this process, behind the wire: messages cross as bytes. `received` is what the gateway sent
    to it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[Message] = []
        self.plain = False
        self.frames = 0
        self.ended_at_once = False
        self.working = False  # though it says nothing
        self._to_gateway: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._from_gateway = Decoder()
        self._encoders = {}
        for message in script.first:
            self.say(message)
        self._pump = asyncio.create_task(self._live()) if script.live else None

    @property
    def job(self) -> WorkerJob:
        job = self.received[0]
        assert isinstance(job, WorkerJob)
        return job

    def say(self, message: Message) -> None:
        self._to_gateway.put_nowait(encode(message))

    def die(self) -> None:
        if self._pump:
            self._pump.cancel()
        self._to_gateway.put_nowait(None)

    def speak_nonsense(self) -> None:
        self._to_gateway.put_nowait(b"nonsense")

    def hang(self) -> None:
        self._pump.cancel()

    @property
    def keyframe_requests(self) -> list[str]:
        return [m.rendition for m in self.received if isinstance(m, RequestKeyframe)]

    # Worker

    async def messages(self) -> AsyncIterator[Message]:
        decoder = Decoder()
        while (data := await self._to_gateway.get()) is not None:
            for message in decoder.feed(data):
                yield message

    def send(self, message: Message) -> bool:
        (received,) = self._from_gateway.feed(encode(message))
        self.received.append(received)
        match received:
            case RequestKeyframe(rendition=rendition) if rendition in self._encoders:
                self._encoders[rendition].force = True
            case Watch(renditions=renditions):
                self.plain = "plain" in renditions
        return True

    def at_work(self) -> bool:
        return self.working

    async def stop(self, *, at_once: bool = False) -> str:
        self.ended_at_once = at_once
        self.send(Stop())
        if self._pump:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        return "the worker was ended by SIGKILL"

    async def _live(self) -> None:
        script = self.script
        sound = Sound() if script.audio else None
        self.say(opened(script.width, script.height, sound.format if sound else None))
        sizes = {"upscaled": (script.width, script.height), "plain": (script.width // 2, script.height // 2)}
        self._encoders = {
            name: Encoder(*size, script.gop_s, script.noise_bps if name == "upscaled" else 0)
            for name, size in sizes.items()
        }
        self._encoders["plain"].force = True
        started_s = time.monotonic()
        origin = {"opus": int(started_s * 48_000), "aac": int(started_s * 48_000)}
        while True:
            due_s = started_s + self.frames / FPS
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            for rendition in ("upscaled", "plain") if self.plain else ("upscaled",):
                self.say(self._video(rendition, int((due_s - script.video_delay_s) * 90_000)))
            if sound:
                for kind, step in (("opus", 960), ("aac", 1024)):
                    while origin[kind] < due_s * 48_000:
                        for payload in sound.packets(kind, origin[kind]):
                            self.say(
                                AudioPacket(codec=kind, pts=origin[kind], duration=step, payload=payload)
                            )
                        origin[kind] += step
            self.frames += 1
            self.say(Alive())
            if self.frames % 10 == 1:
                self.say(Heartbeat(queues={"upscale": 1}, rss_bytes=100 << 20, cpu_s=self.frames / 100))

    def _video(self, rendition: str, pts: int) -> VideoPacket:
        payload, keyframe = self._encoders[rendition].encode(self.frames, pts)
        now_ns = time.monotonic_ns()
        return VideoPacket(
            rendition=rendition,
            pts=pts,
            duration=FRAME_TICKS,
            keyframe=keyframe,
            arrival_ns=now_ns - 20_000_000,
            sent_ns=now_ns,
            trace=Trace(demux=0, decode=0.001, queue=0.002, upscale=0.015, encode=0.002),
            payload=payload,
        )


@dataclass
class ScriptedPlacement:
    script: Script = field(default_factory=Script)
    workers: list[ScriptedWorker] = field(default_factory=list)

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> tuple[()]:
        return ()

    async def start(self, job: WorkerJob) -> ScriptedWorker:
        if self.script.refuse:
            raise OSError(self.script.refuse)
        worker = ScriptedWorker(self.script)
        worker.send(job)
        self.workers.append(worker)
        return worker


@dataclass
class Gateway:
    base: str
    http: httpx.AsyncClient
    placement: ScriptedPlacement
    app: App | None = None

    @property
    def worker(self) -> ScriptedWorker:
        """The one that runs now."""
        return self.placement.workers[-1]

    async def stream(self, name: str = "demo") -> dict:
        return (await self.http.get(f"/api/streams/{name}")).json()

    async def in_state(self, state: str, name: str = "demo") -> dict:
        async def there() -> dict | None:
            stream = await self.stream(name)
            return stream if stream.get("state") == state else None

        return await until(there, f"{name} is {state}")

    async def metrics(self) -> dict[str, float]:
        lines = (await self.http.get("/metrics")).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@contextlib.asynccontextmanager
async def gateway(
    placement: ScriptedPlacement | None = None,
    *,
    streams: tuple[str, ...] = ("demo",),
    capacity: Capacity | None = None,
    kept: KeptStreams | None = None,
    **tables,
) -> AsyncIterator[Gateway]:
    """Serves until the block ends; `tables` are settings. Streams run unwatched unless told otherwise."""
    placement = placement or ScriptedPlacement()
    tables["defaults"] = {"upscale_when": "always"} | tables.get("defaults", {})
    settings = Settings.model_validate(
        {
            "webrtc": {"host_addresses": ["127.0.0.1"]},
            "streams": [{"id": name, "source": "synthetic:"} for name in streams],
            **tables,
        }
    )
    connections = Connections(settings.limits, Refusals(lambda reason: None), proxies=())
    app = create_app(settings, placement, capacity=capacity, kept=kept)
    async with serving(app, guarded(connections)) as base, httpx.AsyncClient(base_url=base) as http:
        yield Gateway(base, http, placement, app)


@contextlib.asynccontextmanager
async def serving(app, protocol="auto") -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done(), "the gateway listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class Viewer:
    """An independent WHEP viewer: aiortc's peer connection, its decoder, its jitter buffer."""

    def __init__(
        self, gateway: Gateway, stream: str = "demo", *, videos: int = 1, audio: bool = True
    ) -> None:
        self.gateway = gateway
        self.stream = stream
        self.frames: list[list[av.VideoFrame]] = [[] for _ in range(videos)]
        self.sound: list[av.AudioFrame] = []
        self.location = ""
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for _ in range(videos):
            self.pc.addTransceiver("video", direction="recvonly")
        if audio:
            self.pc.addTransceiver("audio", direction="recvonly")
        self._tasks: list[asyncio.Task[None]] = []

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def __aenter__(self) -> "Viewer":
        response = await self.gateway.http.post(
            f"/whep/{self.stream}",
            content=self.to_gateway(await self.offer()),
            headers={"Content-Type": "application/sdp"},
        )
        assert response.status_code == 201, response.text
        self.response = response
        self.location = response.headers["Location"]
        answer = await self.from_gateway(response.text)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        videos = [r.track for r in self.pc.getReceivers() if r.track.kind == "video"]
        for track, frames in zip(videos, self.frames, strict=True):
            self._tasks.append(asyncio.create_task(self._watch(track, frames)))
        for receiver in self.pc.getReceivers():
            if receiver.track.kind == "audio":
                self._tasks.append(asyncio.create_task(self._watch(receiver.track, self.sound)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pc.close()

    def to_gateway(self, offer: str) -> str:
        return offer

    async def from_gateway(self, answer: str) -> str:
        return answer

    async def _watch(self, track, frames: list) -> None:
        while True:
            frames.append(await track.recv())

    async def sees(self, count: int, video: int = 0) -> list[av.VideoFrame]:
        await until(
            lambda: len(self.frames[video]) >= count, f"{count} frames; {len(self.frames[video])} came"
        )
        return self.frames[video]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewers' side of ICE stays on loopback, which aioice leaves out by itself."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
