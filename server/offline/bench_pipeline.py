"""How much of the bare engine's speed is left once a real clip is decoded, encoded and sent around it."""

import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from engine.backends.openvino.peak import measure_peak
from engine.backends.require_gpu import GPU_BACKENDS
from engine.frame import Engine, EngineSpec, GpuEngine, Precision
from engine.load import choose, load_engine
from engine.trials import DrivenLane
from server.offline.file_reader import WholeFile
from server.wire.logs import get_logger
from server.wire.messages import DEFAULT_KEYFRAME_INTERVAL_S, VIDEO_CLOCK_HZ, Message
from server.worker.connection import Connection
from server.worker.encode.h264 import choose_encoder
from server.worker.encode.video import VideoPublisher
from server.worker.ingest.open import DEMO_CLIP
from server.worker.process.lanes import lane_count
from server.worker.process.picture import Picture, host_planes
from server.worker.process.pipeline import Pipeline
from server.worker.process.ring import Upscaled
from server.worker.process.supply import LoadEngine

# New lanes and a new encoder take a few frames until they run at speed.
_WARM_UP_FRAMES = 10

_LOG = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Medians over the rounds. `cpu_ms_per_frame` is the time of all cores together."""

    frames_per_s: float
    cpu_ms_per_frame: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBench:
    """Result of rounds in each of which both ran once through the same pictures."""

    spec: EngineSpec
    clip: str
    lanes: int
    on_gpu: bool  # pictures stayed there from decoder to encoder
    encoder: str
    preset: str
    rounds: int
    frames_per_round: int
    peak_gmac_per_s: float | None  # of the engine's precision on this machine; None off the CPU
    engine: Rate
    pipeline: Rate

    def gmac_per_s(self, rate: Rate) -> float:
        return rate.frames_per_s * self.spec.macs_per_frame / 1e9

    @property
    def ratio(self) -> float:
        return self.pipeline.frames_per_s / self.engine.frames_per_s

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def bench_pipeline(
    model: str,
    *,
    clip: Path = DEMO_CLIP,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    lanes: int,
    encoder: str = "auto",
    preset: str,
    seconds: float,
) -> PipelineBench:
    """Decode, lanes, encode and the socket to the gateway as fast as they go, nothing dropped, in turns with
    the engine alone on the same pictures: in the GPU's memory where the service would keep them there.
    Without sound, whose cost does not grow with the frame rate."""
    encoder = choose_encoder(encoder, preset, _LOG)
    on_gpu = encoder == "h264_nvenc" and choose(model, backend, precision).backend in GPU_BACKENDS
    read = partial(decode, clip, on_gpu=on_gpu)
    pictures = list[Picture]()
    read(pictures.append)
    if len(pictures) < 2 * _WARM_UP_FRAMES:
        raise ValueError(f"{clip}: has {len(pictures)} pictures; at least {2 * _WARM_UP_FRAMES} are needed")
    first = pictures[0].format
    width, height = first.even_size
    on_gpu = pictures[0].on_gpu  # NVDEC does not take every clip
    engine = load_engine(
        model, width=width, height=height, colour=first.colour,
        backend=backend, precision=precision, threads=threads, lanes=lanes,
    )  # fmt: skip
    lanes = lane_count(engine, on_gpu=on_gpu)
    frames = [picture.planes if on_gpu else host_planes(picture) for picture in pictures]
    alone, whole = list[Rate](), list[Rate]()
    with Drain() as drain:
        end_s = time.monotonic() + seconds
        while not whole or time.monotonic() < end_s:
            alone.append(measure_rate(partial(_run_engine, _lane_maker(engine, on_gpu), frames, lanes)))
            publisher = VideoPublisher(
                encoder=encoder,
                preset=preset,
                bitrate_bps=0,
                keyframe_interval_s=DEFAULT_KEYFRAME_INTERVAL_S,
                send=drain.send,
                audio_format=lambda: None,
                log=_LOG,
            )
            whole.append(measure_rate(partial(run_pipeline, lambda *_: engine, read, lanes, publisher)))
            publisher.close()
    return PipelineBench(
        spec=engine.spec,
        clip=clip.name,
        lanes=lanes,
        on_gpu=on_gpu,
        encoder=encoder,
        preset=preset,
        rounds=len(whole),
        frames_per_round=len(frames),
        peak_gmac_per_s=_peak_gmac_per_s(engine.spec, threads),
        engine=_median(alone),
        pipeline=_median(whole),
    )


def describe(bench: PipelineBench) -> str:
    spec = bench.spec
    lines = [
        f"{spec.model} · {spec.backend} {spec.precision} · {spec.width}×{spec.height} → "
        f"{spec.width * spec.scale}×{spec.height * spec.scale} · {bench.clip} · {bench.rounds} rounds, "
        f"{bench.lanes} lanes, {bench.encoder} {bench.preset}" + (" · NVDEC to NVENC" if bench.on_gpu else "")
    ]
    for name, rate in (("engine alone", bench.engine), ("pipeline", bench.pipeline)):
        gmac_per_s = bench.gmac_per_s(rate)
        share = f" ({gmac_per_s / bench.peak_gmac_per_s:.0%} of peak)" if bench.peak_gmac_per_s else ""
        lines.append(
            f"  {name:<13}{rate.frames_per_s:6.1f} frames/s, {rate.cpu_ms_per_frame:5.1f} ms CPU a frame, "
            f"{gmac_per_s:5.1f} GMAC/s{share}"
        )
    return "\n".join([*lines, f"  ratio        {bench.ratio:6.2f}"])


def _peak_gmac_per_s(spec: EngineSpec, threads: int) -> float | None:
    if spec.backend != "openvino" or spec.precision is None:
        return None
    return measure_peak(spec.precision, threads=threads) / 1e6  # from multiply-adds a millisecond


def decode(clip: Path, put: Callable[[Picture], None], *, on_gpu: bool = False) -> None:
    """Gives every picture of the clip; `on_gpu`: as surfaces, where NVDEC takes it."""
    whole = WholeFile(clip, _LOG, time_base=Fraction(1, VIDEO_CLOCK_HZ), on_gpu=on_gpu)
    try:
        whole.run(put)
    finally:
        whole.close()


def measure_rate(run: Callable[[Callable[[], None]], None]) -> Rate:
    """Rate of `run`, which calls what it is given for each frame that is done; the first ten don't count."""
    marks = list[tuple[float, float]]()

    def done() -> None:
        times = os.times()
        marks.append((time.perf_counter(), times.user + times.system))

    run(done)
    (start_s, start_cpu_s), (end_s, end_cpu_s) = marks[_WARM_UP_FRAMES], marks[-1]
    frames = len(marks) - 1 - _WARM_UP_FRAMES
    return Rate(
        frames_per_s=frames / (end_s - start_s), cpu_ms_per_frame=1e3 * (end_cpu_s - start_cpu_s) / frames
    )


def _median(rates: Sequence[Rate]) -> Rate:
    return Rate(
        frames_per_s=statistics.median(rate.frames_per_s for rate in rates),
        cpu_ms_per_frame=statistics.median(rate.cpu_ms_per_frame for rate in rates),
    )


def _lane_maker(engine: Engine, on_gpu: bool) -> Callable[[], DrivenLane]:
    return engine.surface_lane if on_gpu and isinstance(engine, GpuEngine) else engine.lane


def _run_engine(
    make: Callable[[], DrivenLane], frames: Sequence[object], count: int, done: Callable[[], None]
) -> None:
    """Runs the bare engine with `count` frames in flight."""
    lanes = [make() for _ in range(count)]
    for index in range(len(frames) + count):
        lane = lanes[index % count]
        if index >= count:
            lane.wait()
            done()
        if index < len(frames):
            lane.submit(frames[index])


def run_pipeline(
    load: LoadEngine,
    produce: Callable[[Callable[[Picture], None]], None],
    lanes: int,
    publisher: VideoPublisher,
    done: Callable[[], None],
) -> None:
    """A stream as fast as it goes, nothing dropped; `done` is called for each frame."""

    def consume(upscaled: Upscaled) -> None:
        publisher.publish(upscaled)
        done()

    pipeline = Pipeline(
        produce=produce,
        load=load,
        lanes=lanes,
        consume=consume,
        on_drop=None,
        log=_LOG,
    )
    pipeline.start()
    pipeline.join()


class Drain:
    """A gateway that takes everything and keeps nothing."""

    def __enter__(self) -> "Drain":
        self._ours, theirs = socket.socketpair()
        self._connection = Connection(theirs)
        self._thread = threading.Thread(target=self._read, name="drain")
        self._thread.start()
        return self

    def send(self, message: Message) -> None:
        self._connection.send(message)

    def _read(self) -> None:
        buffer = bytearray(1 << 20)
        while self._ours.recv_into(buffer):
            pass

    def __exit__(self, *_: object) -> None:
        self._connection.finish()
        self._thread.join()
        self._connection.close()
        self._ours.close()
