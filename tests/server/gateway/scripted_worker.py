"""Workers that do as a script says, in this process, behind the wire."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from server.wire.codec import Decoder, encode
from server.wire.messages import (
    Alive,
    AudioPacket,
    Heartbeat,
    Message,
    RequestKeyframe,
    Stop,
    Trace,
    VideoPacket,
    Watch,
    WorkerJob,
)
from server.wire.renditions import in_vp8
from tests.server.gateway.scripted_media import FPS, FRAME_TICKS, Encoder, Sound, opened


@dataclass
class Script:
    """What the workers of a placement do. A test changes it before the next worker starts."""

    width: int = 160
    height: int = 120
    gop_s: float = 2.0
    noise_bps: int = 0  # the upscaled picture is noisy, and takes that much
    numbered: bool = False  # each half of a picture carries its number
    gated: bool = False  # while nobody watches nothing is made, but for one picture at the start
    silent: bool = False  # nothing comes from the source: the last picture is shown again
    source_lag_s: float = 0.0  # so much later than the upscaled picture the others come
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
        self.watched: tuple[str, ...] = ()
        self.frames = 0
        self.ended_at_once = False
        self.isolated = False
        self.elsewhere = None
        self.lost = False
        self.working = False  # though it says nothing
        self._to_gateway: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._from_gateway = Decoder()
        self._encoders = {}
        self._force = False
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
    def keyframe_requests(self) -> list[RequestKeyframe]:
        return [m for m in self.received if isinstance(m, RequestKeyframe)]

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
            case RequestKeyframe():
                self._force = True
            case Watch(renditions=renditions):
                self._force |= bool(set(renditions) - set(self.watched))
                self.watched = renditions
        return True

    def at_work(self) -> bool:
        return self.working

    async def stop(self, *, at_once: bool = False) -> str:
        self.ended_at_once = at_once
        self.send(Stop())
        if self._pump:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        # FastAPI remembers what it has once served, and so the gateway with all its workers.
        self._encoders.clear()
        self._pump = None
        return "the worker was ended by SIGKILL"

    async def _live(self) -> None:
        script = self.script
        sound = Sound() if script.audio else None
        self.say(opened(script.width, script.height, sound.format if sound else None))
        self._encoders = {
            form.name: Encoder(
                form.width,
                form.height,
                script.gop_s if form.name == "upscaled" else 1e4,
                script.noise_bps if form.name == "upscaled" else 0,
                numbered=script.numbered,
            )
            for form in opened(script.width, script.height).renditions
        }
        self._encoders |= {
            in_vp8(name): Encoder(*h264.size, 1e4, vp8=True) for name, h264 in self._encoders.items()
        }
        started_s = time.monotonic()
        origin = {"opus": int(started_s * 48_000), "aac": int(started_s * 48_000)}
        while True:
            due_s = started_s + self.frames / FPS
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            keyframe, self._force = self._force, False
            pts = int((due_s - script.video_delay_s) * 90_000)
            for rendition, encoder in self._encoders.items():
                always = rendition == "upscaled" and not (script.gated and self.frames)
                if always or rendition in self.watched:
                    encoder.force = keyframe
                    packet = self._video(rendition, pts)
                    keyframe = packet.keyframe
                    lag_s = 0.0 if rendition == "upscaled" else script.source_lag_s
                    if lag_s:
                        asyncio.get_running_loop().call_later(lag_s, self.say, packet)
                    else:
                        self.say(packet)
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
            slate=self.script.silent,
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
