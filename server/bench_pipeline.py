"""How much of the bare engine's speed is left once a real clip is decoded, encoded and sent around it."""

import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from engine.frame import Colour, Engine, EngineSpec, Precision, YuvFrame
from engine.load import load_engine
from server.ingest.container import find_tracks, tracks_of
from server.ingest.source import DEMO_CLIP
from server.messages import VIDEO_CLOCK_HZ
from server.process.decode import PictureDecoder
from server.process.picture import Picture
from server.process.pipeline import Pipeline
from server.process.timeline import now_ns
from server.process.upscale import Upscaled
from server.publish.audio import AudioFormat
from server.publish.video import VideoPublisher
from server.worker import Gateway

# New lanes and a new encoder take a few frames until they run at speed.
_WARM_UP_FRAMES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBench:
    """Medians over `rounds`, in each of which both ran once through the same pictures."""

    spec: EngineSpec
    clip: str
    lanes: int
    encoder: str
    preset: str
    rounds: int
    frames_per_round: int
    engine_frames_per_s: float
    pipeline_frames_per_s: float

    @property
    def ratio(self) -> float:
        return self.pipeline_frames_per_s / self.engine_frames_per_s

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def bench_pipeline(
    model: str,
    *,
    clip: Path = DEMO_CLIP,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    lanes: int = 2,
    encoder: str = "auto",
    preset: str,
    seconds: float = 20.0,
) -> PipelineBench:
    """Decode, lanes, encode and the socket to the gateway as fast as they go, nothing dropped, in turns with
    the engine alone on the same pictures. Without sound, whose cost does not grow with the frame rate."""
    log = logging.LoggerAdapter(logging.getLogger("livesr.bench"), {})
    pictures = list[Picture]()
    _Decoding(clip, log).run(pictures.append)
    first = pictures[0].format
    width, height = first.even_size
    engine = load_engine(
        model, width=width, height=height, colour=first.colour,
        backend=backend, precision=precision, threads=threads,
    )  # fmt: skip
    frames = [picture.planes for picture in pictures]
    with _Drain() as drain:
        publisher = VideoPublisher(
            encoder=encoder,
            preset=preset,
            bitrate_bps=0,
            keyframe_interval_s=2.0,
            send=drain.gateway.send,
            audio_format=AudioFormat,
            log=log,
        )
        alone, whole = list[float](), list[float]()
        end_s = time.monotonic() + seconds
        while not whole or time.monotonic() < end_s:
            alone.append(_engine_rate(engine, frames, lanes))
            whole.append(_pipeline_rate(engine, clip, lanes, publisher, log))
        publisher.close()
    return PipelineBench(
        spec=engine.spec,
        clip=clip.name,
        lanes=lanes,
        encoder=publisher.encoder,
        preset=preset,
        rounds=len(whole),
        frames_per_round=len(frames),
        engine_frames_per_s=statistics.median(alone),
        pipeline_frames_per_s=statistics.median(whole),
    )


def describe(bench: PipelineBench) -> str:
    spec = bench.spec
    return (
        f"{spec.model} ({spec.precision}, {spec.backend}) {spec.width}×{spec.height} → "
        f"{spec.width * spec.scale}×{spec.height * spec.scale}, {bench.clip}, {bench.rounds} rounds\n"
        f"  engine alone  {bench.engine_frames_per_s:7.1f} frames/s\n"
        f"  pipeline      {bench.pipeline_frames_per_s:7.1f} frames/s "
        f"({bench.encoder} {bench.preset}, {bench.lanes} lanes)\n"
        f"  ratio         {bench.ratio:7.2f}"
    )


class _Decoding:
    """The clip from its file, as a worker decodes it."""

    def __init__(self, clip: Path, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._clip = clip
        self._log = log
        self._start_s = time.monotonic()

    def run(self, put: Callable[[Picture], None]) -> None:
        with av.open(f"file:{self._clip.absolute()}") as container:
            video, _ = find_tracks(container)
            decoder = PictureDecoder(
                tracks_of(video, None),
                max_size=(1 << 20, 1 << 20),
                stamp=lambda pts, duration, time_base, _: (
                    round((self._start_s + float(pts * time_base)) * VIDEO_CLOCK_HZ),
                    round(duration * time_base * VIDEO_CLOCK_HZ),
                ),
                on_drop=lambda _: None,
                log=self._log,
            )
            for packet in container.demux(video):
                for picture in decoder.decode(packet, now_ns()):
                    put(picture)


class _Drain:
    """A gateway that takes everything and keeps nothing."""

    def __enter__(self) -> "_Drain":
        self._ours, theirs = socket.socketpair()
        self.gateway = Gateway(theirs)
        self._theirs = theirs
        self._thread = threading.Thread(target=self._read, name="drain")
        self._thread.start()
        return self

    def _read(self) -> None:
        buffer = bytearray(1 << 20)
        while self._ours.recv_into(buffer):
            pass

    def __exit__(self, *_: object) -> None:
        self._theirs.close()
        self._thread.join()
        self._ours.close()


def _engine_rate(engine: Engine, frames: list[YuvFrame], count: int) -> float:
    """Frames/s with `count` of them in flight."""
    lanes = [engine.lane() for _ in range(count)]
    done = list[float]()
    for index, frame in enumerate(frames):
        if index >= count:
            lanes[index % count].wait()
            done.append(time.perf_counter())
        lanes[index % count].submit(frame)
    for index in range(len(frames), len(frames) + count):
        lanes[index % count].wait()
        done.append(time.perf_counter())
    return _rate(done)


def _pipeline_rate(
    engine: Engine,
    clip: Path,
    lanes: int,
    publisher: VideoPublisher,
    log: logging.LoggerAdapter[logging.Logger],
) -> float:
    done = list[float]()

    def consume(upscaled: Upscaled) -> None:
        publisher.publish(upscaled)
        done.append(time.perf_counter())

    def load(width: int, height: int, colour: Colour) -> Engine:
        return engine

    pipeline = Pipeline(
        produce=_Decoding(clip, log).run, load=load, lanes=lanes, consume=consume, on_drop=None, log=log
    )
    pipeline.start()
    pipeline.join()
    return _rate(done)


def _rate(done: list[float]) -> float:
    if len(done) < 2 * _WARM_UP_FRAMES:
        raise ValueError(f"the clip has {len(done)} pictures; at least {2 * _WARM_UP_FRAMES} are needed")
    times = np.array(done[_WARM_UP_FRAMES:])
    return float((len(times) - 1) / (times[-1] - times[0]))
