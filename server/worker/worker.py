"""One stream, from its source to the gateway: its parts wired together."""

import os
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime

from msgspec.structs import replace

from server.wire.logs import Log, set_level
from server.wire.messages import (
    BICUBIC,
    DropReason,
    EngineLoad,
    Heartbeat,
    Message,
    Published,
    PublishedData,
    PublisherGone,
    Rendition,
    RequestKeyframe,
    SetLogLevel,
    Stage,
    Stepped,
    StepUp,
    Stop,
    Watch,
    WorkerJob,
)
from server.worker.connection import Connection
from server.worker.cost import Account, FrameCost, work_of
from server.worker.drops import Drops
from server.worker.encode.slate import Slate, load_image
from server.worker.encode.video import IDLE_S, VideoPublisher
from server.worker.engines import LoadBy, bicubic_loader, gpu_use, lower_models, stays_on_gpu, torch_loader
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceError
from server.worker.live import LiveIngest
from server.worker.process.gate import Gate
from server.worker.process.governor import Governor
from server.worker.process.picture import Picture
from server.worker.process.pipeline import Pipeline
from server.worker.process.ring import Upscaled
from server.worker.process.supply import StandIn
from server.worker.pulse import HANG_S, Pulse

_HEARTBEAT_S = 0.5
# Of the patience with an engine where viewers have seen pictures, and wait for the next.
_FOLLOWING = 0.05


class WorkerHung(Exception):
    """A thread of the pipeline makes no step."""


class JobError(Exception):
    """A job that can never be done as it is; the message names the key, its value and the rule."""


class Worker:
    """One stream, from its source to the gateway."""

    def __init__(
        self, job: WorkerJob, connection: Connection, log: Log, load_by: LoadBy, account: Account
    ) -> None:
        """`account` is of all streams of the process. Raises JobError, EngineError."""
        self.stop = threading.Event()
        self._watched = threading.Event()
        self._job = job
        self._connection = connection
        self._progress = ""  # of loading an engine, in the loader's words
        self._told: EngineLoad | None = None
        self._drops = Drops(log)
        try:
            models = lower_models(job)
        except ValueError as exc:
            raise JobError(str(exc)) from exc
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
                renditions=job.renditions,
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
                on_sound_drop=lambda reason: self._drops.add("decode", reason, sound=True),
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
            consume=self._publish,
            on_drop=self._on_drop,
            log=log,
            stand_in=StandIn(
                load=bicubic_loader(job),
                better=torch_loader(job, load_by),
                patience_s=job.engine_patience_s * (_FOLLOWING if job.takes_over else 1.0),
            ),
            lower=[
                bicubic_loader(job)
                if model == BICUBIC
                else load_by(replace(job, model=model), lambda _: None)
                for model in models
            ],
            level=lambda: self._governor.level,
            on_other_engine=self._governor.rest,
            idle=self.publisher.idle,
            idle_s=IDLE_S,
        )
        self._pulse = Pulse(
            connection.send, steps=self._pipeline.steps, held_up=lambda: connection.held_up, stop=self.stop
        )
        self._work = 0.0
        self._pictures = 0
        self._account = account
        self._share = account.open(lambda: self._work)

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

    def close(self) -> None:
        """Returns once nothing of it is left; what waits is ended."""
        self.stop.set()
        self._watched.set()  # for who waits to be watched
        self._account.close(self._share)
        self._pipeline.close()
        self._pulse.join()
        # Its parts know each other, and codecs with their threads and memory must not wait for the collector.
        self.publisher.close()
        self._ingest.close()

    def _publish(self, upscaled: Upscaled) -> None:
        self.publisher.publish(upscaled)
        self._work += work_of(upscaled.spec)

    def _produce(self, put: Callable[[Picture], None]) -> None:
        self._gate = Gate(put, watched=self._watched.is_set, loaded=lambda: self._pipeline.loaded)
        self._ingest.run(self._put)

    def _put(self, picture: Picture) -> None:
        self._pictures += 1
        self._gate.put(picture)

    def obey(self, messages: Iterator[Message]) -> None:
        """Does what the gateway says until it says stop, or is gone."""
        for message in messages:
            match message:
                case RequestKeyframe():
                    self.publisher.request_keyframe()
                case Watch(renditions=renditions):
                    self._watch(renditions)
                case StepUp(level=level):
                    self._governor.step_up(level)
                case Published() | PublishedData() | PublisherGone():
                    self._inbox.put(message)
                case SetLogLevel(level=at):
                    set_level(at)
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
        if not self._connection.send(message):  # sound; all else waits
            self._drops.add("publish", "slow_gateway", sound=True)

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
        cpu_s, rss_bytes = self._account.report(self._share)
        self._connection.send(
            Heartbeat(
                queues=self._pipeline.queues(),
                pid=os.getpid(),
                rss_bytes=rss_bytes,
                cpu_s=cpu_s,
                steady=self._governor.steady,
                frame_cpu_s=self._cost.report(self._governor.level, self.publisher.frames, cpu_s),
                pictures=self._pictures,
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
            gpu=gpu_use(status.spec, lanes=self._job.lanes, on_gpu=status.on_gpu) if status.spec else None,
        )


def open_slate(job: WorkerJob, log: Log) -> Slate:
    """The operator's image where there is one; else, the log says why, the last picture."""
    if job.slate is None:
        return Slate(None)
    try:
        return Slate(load_image(job.slate))
    except ValueError as exc:
        log.error("slate not shown", reason=str(exc))
        return Slate(None)
