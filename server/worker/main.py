"""The process of one stream: its pipeline wired together, and the gateway at the other end of a socket.

Started as `python -m server.worker.main --fd N`, N being an inherited socket that speaks `wire.codec`.
"""

import argparse
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import NoReturn

from msgspec.structs import replace

from engine.backends.require_gpu import GPU_BACKENDS
from engine.errors import DeviceFailed, EngineError
from engine.frame import Colour, Engine
from engine.load import choose, load_engine, smaller_models
from engine.machine import nvidia_gpus
from server.wire.logs import Log, log_to_stderr, stream_log
from server.wire.messages import (
    BICUBIC,
    DropReason,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    Message,
    Prepare,
    Published,
    PublishedData,
    PublisherGone,
    Rendition,
    RequestKeyframe,
    Stage,
    Stepped,
    StepUp,
    Stop,
    Watch,
    WorkerBroken,
    WorkerJob,
)
from server.worker.connection import Connection
from server.worker.cost import FrameCost
from server.worker.drops import Drops
from server.worker.encode.slate import Slate, load_image
from server.worker.encode.video import IDLE_S, VideoPublisher
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceError
from server.worker.live import LiveIngest
from server.worker.memory import held_bytes, lacks_memory, limit_memory
from server.worker.prepared import PreparedEngines
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.gate import Gate
from server.worker.process.governor import Governor
from server.worker.process.picture import Picture
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import LoadEngine, StandIn
from server.worker.pulse import HANG_S, Pulse

_HEARTBEAT_S = 0.5
_PAGE_BYTES = resource.getpagesize()


# How a job's engines are loaded; what is called with words on how far a long build is.
LoadBy = Callable[[WorkerJob, Callable[[str], None]], LoadEngine]


class WorkerHung(Exception):
    """A thread of the pipeline makes no step."""


class JobError(Exception):
    """A job that can never be done as it is; the message names the key, its value and the rule."""


class Worker:
    """One stream, from its source to the gateway."""

    def __init__(self, job: WorkerJob, connection: Connection, log: Log, load_by: LoadBy) -> None:
        """Raises JobError."""
        self.stop = threading.Event()
        self._watched = threading.Event()
        self._job = job
        self._connection = connection
        self._progress = ""  # of loading an engine, in the loader's words
        self._told: EngineLoad | None = None
        self._drops = Drops(log)
        models = lower_models(job)
        levels = 1 + len(models)
        self._governor = Governor(
            levels=levels,
            level=min(job.level, levels - 1),
            budget_s=job.latency_budget_s,
            on_step=self._on_step,
        )
        self._cost = FrameCost(levels)
        self._inbox = PublisherInbox(
            send=self._send, on_drop=lambda: self._drops.add("decode", "slow_worker")
        )
        try:
            self.publisher = VideoPublisher(
                encoder=job.encoder,
                preset=job.preset,
                bitrate_bps=job.bitrate_bps,
                keyframe_interval_s=job.keyframe_interval_s,
                send=self._send,
                on_frame=self._governor.frame,
                audio_format=lambda: ingest.audio_format(),
                log=log,
                after=job.video_after,
                slate=open_slate(job, log),
                before=job.opened,
                silence=lambda until_s, form: ingest.silence(until_s, form),
            )
            ingest = LiveIngest(
                open_source(
                    job.source,
                    policy=job.policy,
                    loop=job.loop,
                    max_size=(job.max_width, job.max_height),
                    timeout_s=job.source_timeout_s,
                    stop=self.stop,
                    inbox=self._inbox,
                ),
                max_size=(job.max_width, job.max_height),
                timeout_s=job.source_timeout_s,
                send=self._send,
                on_drop=self._on_drop,
                on_open=self._governor.rest,
                on_away=self._on_away,
                takes_sound=self.publisher.takes_sound,
                stop=self.stop,
                watched=self._watched,
                source_when=job.source_when,
                deinterlace=job.deinterlace,
                log=log,
                on_gpu=stays_on_gpu(job, self.publisher.encoder, log),
                sound_after=job.sound_after,
            )
        except ValueError as exc:
            raise JobError(str(exc)) from exc
        self._ingest = ingest
        self._pipeline = Pipeline(
            produce=self._produce,
            load=load_by(job, self._on_progress),
            lanes=job.lanes,
            consume=self.publisher.publish,
            on_drop=self._on_drop,
            log=log,
            stand_in=StandIn(load=bicubic_loader(job), patience_s=job.engine_patience_s),
            lower=[
                bicubic_loader(job)
                if model == BICUBIC
                else load_by(replace(job, model=model), lambda _: None)
                for model in models
            ],
            level=lambda: self._governor.level,
            idle=self.publisher.idle,
            idle_s=IDLE_S,
        )
        self._pulse = Pulse(
            connection.send, steps=self._pipeline.steps, held_up=lambda: connection.held_up, stop=self.stop
        )

    def run(self) -> None:
        """Runs until stopped. Raises what ended the pipeline, SourceError where the source is over, or
        WorkerHung."""
        self._pipeline.start()
        self._pulse.start()
        while self._pipeline.running and not self.stop.wait(_HEARTBEAT_S):
            self._report()
            if self._pulse.hung:
                silent = f"no step for {HANG_S:g} s or more"
                raise WorkerHung(f"the worker's {self._pulse.hung} thread hangs: {silent}")
        self._report()
        if self.stop.is_set():
            self._pipeline.abort()
        self._pipeline.join(timeout_s=1.0)
        if not self.stop.is_set():
            raise SourceError("the source has ended")

    def _produce(self, put: Callable[[Picture], None]) -> None:
        self._gate = Gate(put, watched=self._watched.is_set, loaded=lambda: self._pipeline.loaded)
        self._ingest.run(self._gate.put)

    def obey(self, messages: Iterator[Message]) -> None:
        """Does what the gateway says until it says stop, or is gone."""
        for message in messages:
            match message:
                case RequestKeyframe(rendition=rendition):
                    self.publisher.request_keyframe(rendition)
                case Watch(renditions=renditions):
                    self._watch(renditions)
                case StepUp(level=level):
                    self._governor.step_up(level)
                case Published() | PublishedData() | PublisherGone():
                    self._inbox.put(message)
                case Stop():
                    break
        self.stop.set()
        self._watched.set()  # for who waits to be watched

    def _watch(self, renditions: Collection[Rendition]) -> None:
        self.publisher.watch(renditions)
        if not renditions:
            self._watched.clear()
        elif not self._watched.is_set():
            self._governor.rest()
            self._watched.set()

    def _send(self, message: Message) -> None:
        if not self._connection.send(message):
            self._drops.add("publish", "slow_gateway")

    def _on_drop(self, stage: Stage, reason: DropReason) -> None:
        self._drops.add(stage, reason)
        if reason == "overload":
            self._governor.dropped()

    def _on_step(self, level: int, reason: str) -> None:
        self._connection.send(Stepped(level=level, reason=reason))

    def _on_away(self, since: datetime, opening: int) -> None:
        self._gate.last()
        self.publisher.source_away(since, opening)

    def _on_progress(self, progress: str) -> None:
        self._progress = progress

    def _report(self) -> None:
        for dropped in self._drops.take():
            self._connection.send(dropped)
        load = self._engine_load()
        if load is not None and load != self._told:
            self._told = load
            self._connection.send(load)
        times = os.times()
        cpu_s = times.user + times.system
        self._connection.send(
            Heartbeat(
                queues=self._pipeline.queues(),
                pid=os.getpid(),
                rss_bytes=_rss_bytes(),
                cpu_s=cpu_s,
                steady=self._governor.steady,
                frame_cpu_s=self._cost.report(self._governor.level, self.publisher.frames, cpu_s),
            )
        )

    def _engine_load(self) -> EngineLoad | None:
        status = self._pipeline.load_status
        if status is None:
            return None
        return EngineLoad(
            state=status.state,
            model=self._job.model,
            width=status.width,
            height=status.height,
            elapsed_s=round(status.elapsed_s, 1),
            matrix=status.colour.matrix,
            full_range=status.colour.full_range,
            detail=self._progress if status.state == "loading" else status.reason,
        )


def engine_loader(job: WorkerJob, on_progress: Callable[[str], None]) -> LoadEngine:
    def load(width: int, height: int, colour: Colour) -> Engine:
        on_progress("")  # what was said of the last one
        try:
            return load_engine(
                job.model,
                width=width,
                height=height,
                colour=colour,
                backend=job.backend,
                threads=job.engine_threads,
                lanes=job.lanes,
                on_progress=on_progress,
            )
        except ValueError as exc:  # a size that no engine takes
            raise EngineError(str(exc)) from exc

    return load


def lower_models(job: WorkerJob) -> list[str]:
    """The job's ladder below its own model. Raises JobError for a model of another scale, EngineError."""
    if job.ladder is None:
        return [*smaller_models(job.model, job.backend), BICUBIC]
    scale = choose(job.model, job.backend, None).config.scale
    for model in job.ladder:
        if model == BICUBIC:
            continue
        other = choose(model, job.backend, None).config.scale
        if other != scale:
            raise JobError(f"ladder: {model!r} has scale {other}, but model {job.model!r} has {scale}")
    return list(job.ladder)


def open_slate(job: WorkerJob, log: Log) -> Slate:
    """The operator's image where there is one; else, the log says why, the last picture."""
    if job.slate is None:
        return Slate(None)
    try:
        return Slate(load_image(job.slate))
    except ValueError as exc:
        log.error("%s: the last picture is shown instead", exc)
        return Slate(None)


def stays_on_gpu(job: WorkerJob, encoder: str, log: Log) -> bool:
    """Whether pictures shall lie in the GPU's memory all the way: where the engine runs there and the encoder
    does too."""
    try:
        if not nvidia_gpus() or choose(job.model, job.backend, None).backend not in GPU_BACKENDS:
            return False
    except EngineError:  # loading says so, and fails the stream
        return False
    if encoder != "h264_nvenc":
        log.warning("pictures go through the host's memory: the encoder is %s, not NVENC", encoder)
    return encoder == "h264_nvenc"


def bicubic_loader(job: WorkerJob) -> LoadEngine:
    """What stands in for the job's engine: of the same scale."""

    def load(width: int, height: int, colour: Colour) -> Engine:
        return bicubic_engine(width, height, choose(job.model, job.backend, None).config.scale)

    return load


def serve(gateway: socket.socket, load_by: LoadBy = engine_loader) -> int:
    """Runs the job that comes from the gateway; the exit status says whether it ended as it should."""
    connection = Connection(gateway)
    messages = connection.messages()
    engines = PreparedEngines()
    job = _await_job(messages, engines)
    if job is None:
        return 1
    log = stream_log(job.stream)
    if job.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
        nvidia_gpus.cache_clear()
    limit_memory(job.worker_memory_bytes)
    try:
        worker = Worker(job, connection, log, _prepared_or(load_by, engines))
        threading.Thread(target=worker.obey, args=(messages,), name="control", daemon=True).start()
        worker.run()
    except Exception as exc:  # the boundary of the process: the gateway says why, or starts another one
        last_word = last_word_on(exc, job, log)
    else:
        return 0
    connection.send(last_word)
    connection.close()
    return 1 if isinstance(last_word, JobImpossible) else 70


def _await_job(messages: Iterator[Message], engines: PreparedEngines) -> WorkerJob | None:
    """The job, and meanwhile what there is to prepare; None where the gateway has none for us."""
    for message in messages:
        match message:
            case Prepare():
                engines.prepare(message)
            case WorkerJob():
                return message
            case _:
                return None
    return None


def _prepared_or(load_by: LoadBy, engines: PreparedEngines) -> LoadBy:
    """Loads what wasn't prepared."""

    def prepared_or_load_by(job: WorkerJob, on_progress: Callable[[str], None]) -> LoadEngine:
        load = load_by(job, on_progress)

        def prepared_or_load(width: int, height: int, colour: Colour) -> Engine:
            return engines.take(job, width, height, colour) or load(width, height, colour)

        return prepared_or_load

    return prepared_or_load_by


def last_word_on(exc: Exception, job: WorkerJob, log: Log) -> JobImpossible | WorkerBroken:
    """What the gateway is told of the failure that ends this worker."""
    if lacks_memory(exc):
        bound = f"limits.worker_memory_bytes={job.worker_memory_bytes}"
        reason = f"the worker needed more memory than {bound if job.worker_memory_bytes else 'there is'}"
        log.error("%s", reason, exc_info=exc)
        return WorkerBroken(reason=reason)
    match exc:
        case JobError() | SourceError() | EngineError():
            log.error("stream failed: %s", exc)
            return JobImpossible(reason=str(exc))
        case DeviceFailed() | WorkerHung():
            log.error("worker ends: %s", exc)
            return WorkerBroken(reason=str(exc))
        case _:
            log.error("worker broke, holding %d MB", held_bytes() >> 20, exc_info=exc)
            return WorkerBroken(reason=f"the worker broke: {type(exc).__name__}: {exc}")


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def main(load_by: LoadBy = engine_loader) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m server.worker.main")
    parser.add_argument("--fd", type=int, required=True)
    args = parser.parse_args()
    log_to_stderr()
    status = serve(socket.socket(fileno=args.fd), load_by)
    logging.shutdown()
    # A thread may still be inside a read that only the source's timeout ends, or build an engine; nothing is
    # left to tidy up.
    os._exit(status)


if __name__ == "__main__":
    main()
