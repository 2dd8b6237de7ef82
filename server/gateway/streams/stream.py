"""One stream as the gateway sees it: what its worker says, the state it is in, where its packets go."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from server.gateway.events import Events
from server.gateway.figures.figures import Figures
from server.gateway.figures.metrics import Metrics
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.figures.views import SteppedView, StreamState
from server.gateway.placement import Placement, WorkerHandle
from server.gateway.publish.desk import Desk
from server.gateway.publish.doors import Doors
from server.gateway.record.archive import Archive
from server.gateway.snapshots.snapshots import Snapshots
from server.gateway.streams.audience import Audience
from server.gateway.streams.entrance import Entrance
from server.gateway.streams.log_fields import opened_fields
from server.gateway.streams.moving import Changed, change, move
from server.gateway.streams.outputs import Outputs
from server.gateway.streams.supervisor import Supervisor
from server.gateway.streams.terms import Terms
from server.settings import Hls, StreamSettings
from server.wire import logs
from server.wire.logs import get_logger
from server.wire.messages import (
    UPSCALED,
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
    Reconnecting,
    RequestKeyframe,
    SetLogLevel,
    Stepped,
    StepUp,
    VideoPacket,
    Watch,
    WorkerJob,
)
from server.wire.urls import mask_credentials, mask_url

if TYPE_CHECKING:  # OpenTelemetry is of the extra `otel`
    from server.gateway.figures.tracing import Tracing

log = get_logger(__name__)

_UNWATCHED = "nobody watches"


class Stream:
    """Hears its worker (`Supervised`) and passes on what comes. Started and closed by the registry."""

    def __init__(
        self,
        terms: Terms,
        *,
        created: datetime | None,
        waited_for: bool,
        hls: Hls,
        placement: Placement,
        archive: Archive | None,
        doors: Doors,
        metrics: Metrics,
        tracing: "Tracing | None",
        events: Events,
    ) -> None:
        self.terms, settings = terms, terms.settings
        self._waited_for = waited_for
        self.id = settings.id
        self.state: StreamState = "starting"
        self.reason = ""
        self.figures = Figures(
            StreamMetrics(metrics, settings.id),
            budget_s=settings.latency_budget_s,
            trace=partial(tracing.frame, settings.id) if tracing else None,
        )
        self.outputs = Outputs(
            settings,
            hls=hls,
            archive=archive,
            metrics=self.figures.metrics,
            events=events,
            feedback_keyframe_every_s=terms.limits.feedback_keyframe_every_s,
            on_request_keyframe=self._request_keyframe,
            on_slow_viewer=self._on_slow_viewer,
            on_joined=lambda renditions: self.audience.join(renditions),
            on_listed=self.figures.segment_listed,
        )
        self.audience = Audience(self.figures, terms.granted, on_change=self._on_audience)
        self.snapshots = Snapshots(self.outputs.pictures, glance=self.audience.glance)
        self.outputs.play(self.audience.plays)
        self._events = events
        self.desk = Desk(
            settings.id,
            timeout_s=settings.source_timeout_s,
            override=settings.override_publisher,
            send=lambda message: self._supervisor.send(message),
            on_drop=self._on_slow_worker,
        )
        self.entrance = Entrance(doors, self.desk)
        self.started = datetime.now(UTC)
        self.created = created or self.started
        self.opened: Opened | None = None
        self.engine_load: EngineLoad | None = None
        self._video_pts: int | None = None  # the last
        self._sound_end: int | None = None
        self.level = 0  # of the ladder
        self.stepped: SteppedView | None = None
        self._lost_opening = 0  # of the source by this worker, the last that is over
        self._supervisor = Supervisor(placement, self._job, self)
        self.end_change = self._supervisor.end_change
        self._task: asyncio.Task[None] | None = None
        self._enter("starting")

    def start(self) -> None:
        log.info("stream created", stream=self.id, source=mask_url(self.settings.source))
        self._events.tell("created", self.id)
        self.entrance.open(self.settings.source)
        self.outputs.wanted(self.settings)
        self._task = asyncio.create_task(self._supervise())

    @property
    def settings(self) -> StreamSettings:
        return self.terms.settings

    async def change(self, terms: Terms, *, beside: bool) -> Changed:
        """Takes these in the place of those that it has, under the same viewers. With `beside`, where it can,
        as soon as the next worker has taken over; else at once. Raises NotChanged."""
        await self.end_change()
        job = self._job(terms)
        if job == self._job():
            self._take(terms)
            return Changed(new_worker=False, lossless=True)
        if beside and terms.source == self.terms.source and self._runs_beside():
            await change(self.id, self._supervisor, job, lambda: self._take(terms))
            return Changed(new_worker=True, lossless=True)
        self.renew(terms)
        return Changed(new_worker=True, lossless=False)

    def _take(self, terms: Terms) -> None:
        before, self.terms, settings = self.terms, terms, terms.settings
        self.desk.timeout_s, self.desk.override = settings.source_timeout_s, settings.override_publisher
        self.figures.budget_s = settings.latency_budget_s
        self.audience.grant(terms.granted)
        self.outputs.wanted(settings)
        if before.settings.renditions != settings.renditions:
            self.outputs.webrtc.offer(settings.renditions)  # the next worker may not open for long
        if before.settings.source != settings.source:
            self.engine_load = None
            self.entrance.close()
            self.entrance.open(settings.source)
        if before.ladder != terms.ladder:
            self._at_level(0, None)

    async def _supervise(self) -> None:
        try:
            await self._supervisor.run()
        except Exception:  # a bug of ours ends this stream, and no other
            log.exception("gateway failed", stream=self.id)
            self._fail("the gateway failed; its log says why")

    def end(self) -> None:
        """Tells every viewer that nothing follows and lets the worker go; what HLS has stays."""
        if self._task is not None:
            self._task.cancel()
            self.entrance.close()
        self._enter("stopped")
        self.outputs.ended()
        self.audience.close()

    @property
    def all_told(self) -> bool:
        """Whether no WebRTC viewer is left, and every HLS player has the end of what there is."""
        last = self.outputs.hls.last_names
        waiting = self.figures.hls_players.waiting(last, time.monotonic()) if last else 0
        return not self.figures.whep_viewers and not waiting

    async def close(self) -> None:
        """Ends it and returns when its worker has ended; the stream's metrics go with it."""
        self.end()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self.outputs.close()
        self.figures.metrics.forget()

    def _job(self, terms: Terms | None = None) -> WorkerJob:
        """Of a worker that goes on from here, by its own terms unless others are given."""
        terms = terms or self.terms
        return replace(
            job := terms.job(),
            waited_for=self._waited_for,
            video_after=self._video_pts,
            sound_after=self._sound_end,
            level=self.level if terms.ladder == self.terms.ladder else 0,
            opened=self.opened,
            engine_ahead=job.engine_of(self.engine_load) if self.engine_load is not None else None,
        )

    # Supervised

    def on_start(self, worker: WorkerHandle) -> None:
        self.figures.worker_started(worker)
        self.engine_load = None
        self._lost_opening = 0
        self.desk.worker_gone()  # the one before
        self._watch()
        self.tell_log_level()

    def on_message(self, message: Message) -> None:
        match message:
            case VideoPacket():
                self._on_video(message)
            case AudioPacket():
                self._sound_end = max(self._sound_end or 0, message.pts + message.duration)
                self.outputs.audio(message)
            case Heartbeat():
                self.figures.heartbeat(message)
            case Dropped():
                self.figures.drop(message)
            case Opened():
                self._on_opened(message)
            case EngineLoad():
                self.engine_load = message
            case Reconnecting():
                self._lost_opening = message.opening
                self.figures.reconnecting()
                self._enter("reconnecting", f"{message.reason}; trying again in {message.retry_in_s:.1f} s")
            case PictureMissing():
                self._enter("reconnecting", message.reason)
            case Stepped():
                self._on_stepped(message)
            case AwaitPublisher():
                self.desk.await_publisher(message.opening)
            case NeedKeyframe():
                self.desk.request_key_frame()
            case JobImpossible():
                self._fail(message.reason)
            case _:
                log.warning("message unexpected", stream=self.id, message=type(message).__name__)

    def tell_log_level(self) -> None:
        if (wanted := logs.changed_level()) is not None:
            self._supervisor.send(SetLogLevel(level=wanted))

    def on_death(self, reason: str) -> None:
        self.figures.restarted()
        self._worker_gone()
        self._events.tell("restart", self.id, reason=mask_credentials(reason))
        self._enter("starting", f"{reason}; a new one starts", logged=True)

    def on_quarantine(self, reason: str) -> None:
        self._worker_gone()
        self._enter("quarantined", reason)

    def _worker_gone(self) -> None:
        self.desk.worker_gone()
        self.outputs.interrupted()

    def renew(self, terms: Terms | None = None) -> None:
        """Has another worker begin at once, by these where they are others."""
        if terms is not None:
            self._take(terms)
        self._supervisor.renew()

    def release(self) -> None:
        """Its workers may die again as if none had; one that is in quarantine starts."""
        if self.state == "quarantined":
            self._enter("starting", "released")
        self._supervisor.release()

    async def move(self) -> bool:
        """As `moving.move`."""
        return await move(self.id, self.state, self._supervisor, beside=self._runs_beside())

    def _runs_beside(self) -> bool:
        """Whether another worker can run beside the present one, and somebody would notice."""
        runs = self.state == "running" and self._supervisor.runs
        return runs and bool(self.audience.watches) and not self.entrance.takes_one

    def on_next(self, worker: WorkerHandle) -> None:
        worker.send(Watch(renditions=self.audience.watches))
        if (wanted := logs.changed_level()) is not None:
            worker.send(SetLogLevel(level=wanted))

    def on_takeover(self, worker: WorkerHandle, job: WorkerJob) -> None:
        self.figures.worker_started(worker)
        self._lost_opening = 0
        self._at_level(job.level, self.stepped)
        place = worker.elsewhere
        log.info("another worker has taken over", stream=self.id, node=place.node if place else "")
        self._events.tell("moved", self.id, node=place.node if place else None)

    def _on_audience(self) -> None:
        self._watch()
        self.outputs.play(self.audience.plays)

    def _watch(self) -> None:
        """Tells the worker what is watched."""
        self._supervisor.send(Watch(renditions=self.audience.watches))
        # With its source closed the worker has nothing to say.
        silent = self.settings.source_when == "watched" and self.state in ("starting", "reconnecting")
        if not self.audience.watches and (silent or self.state == "running"):
            self._enter("idle", _UNWATCHED)

    def on_renewal(self) -> None:
        self._worker_gone()
        self._enter("starting", "its settings have changed; a new worker starts", logged=True)

    def on_no_worker(self, reason: str, retry_in_s: float) -> None:
        self._enter("starting", f"{reason}; trying again in {retry_in_s:.1f} s", logged=True)

    def _fail(self, reason: str) -> None:
        """Nothing follows: who watches is told so, instead of being left to wait."""
        self._enter("failed", reason)
        self.outputs.ended()
        self.entrance.close()

    def _on_video(self, packet: VideoPacket) -> None:
        self._video_pts = max(self._video_pts or 0, packet.pts)
        watched = bool(self.audience.watches)
        self.outputs.video(packet)
        if packet.slate:
            return
        # A frame that was on its way when the source was lost is shown, but brings nothing back.
        late = packet.opening <= self._lost_opening
        if packet.rendition == UPSCALED and not late:
            if watched and self.state != "running":
                self._enter("running")
            elif not watched and self.state != "idle":
                self._enter("idle", _UNWATCHED)
        if packet.rendition == UPSCALED and watched:
            # The viewers' tasks are already scheduled: behind them, this runs once each has sent.
            asyncio.get_running_loop().call_soon(self.figures.frame_out, packet)

    def _on_stepped(self, stepped: Stepped) -> None:
        level = logging.WARNING if stepped.level > self.level else logging.INFO
        steps = {"ladder_from": self.level, "ladder_to": stepped.level}
        log.log(level, "network changed", stream=self.id, reason=stepped.reason, **steps)
        self._at_level(stepped.level, SteppedView(reason=stepped.reason, at=datetime.now(UTC)))
        self._events.tell("step", self.id, level=stepped.level, reason=mask_credentials(stepped.reason))

    def _at_level(self, level: int, stepped: SteppedView | None) -> None:
        if level != self.level:
            self.figures.metrics.step(self.level, level)
        self.level, self.stepped = level, stepped

    def step_up(self, level: int) -> None:
        """There is room for that level."""
        self._supervisor.send(StepUp(level=level))

    def _on_opened(self, opened: Opened) -> None:
        before = self.opened is None or self.opened.engine.super_resolution
        if before and not opened.engine.super_resolution:
            self.figures.metrics.fallbacks.inc()
        self.opened = opened
        self.outputs.opened(opened)
        self.figures.metrics.engine(opened.engine)
        self._show_super_resolution()
        log.info("stream opened", stream=self.id, **opened_fields(opened))

    def _on_slow_viewer(self, count: int) -> None:
        self.figures.drop(Dropped(stage="publish", reason="slow_viewer", count=count))

    def _on_slow_worker(self, count: int) -> None:
        self.figures.drop(Dropped(stage="decode", reason="slow_worker", count=count))

    def _request_keyframe(self) -> None:
        self.figures.metrics.keyframe_requests.inc()
        self._supervisor.send(RequestKeyframe())

    def _enter(self, state: StreamState, reason: str = "", *, logged: bool = False) -> None:
        """Logs a change of state, or with `logged` a new reason for the same one."""
        reason = mask_credentials(reason)
        if logged or state != self.state:
            level = logging.INFO if state in ("running", "idle", "stopped") else logging.WARNING
            log.log(level, "stream state", stream=self.id, state=state, reason=reason)
            self._events.tell("state", self.id, state=state, reason=reason)
        self.state, self.reason = state, reason
        self.figures.metrics.enter(state)
        self._show_super_resolution()

    def _show_super_resolution(self) -> None:
        upscaling = self.opened is not None and self.opened.engine.super_resolution
        self.figures.metrics.super_resolution.set(upscaling and self.state == "running")
