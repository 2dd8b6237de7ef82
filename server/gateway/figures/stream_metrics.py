"""One stream's metrics, as what happens to it sets them."""

from collections.abc import Iterable, Mapping
from typing import get_args

from server.gateway.figures.metrics import Metrics, Series
from server.gateway.figures.views import StreamState
from server.gateway.placement import Elsewhere
from server.wire.messages import Dropped, DropReason, EngineFormat, Heartbeat, Stage

# There from the start, at 0: `rate` doesn't see what a counter begins with.
_USUAL_DROPS: tuple[tuple[Stage, DropReason], ...] = (
    ("decode", "corrupt"),
    ("upscale", "engine_loading"),
    ("upscale", "overload"),
    ("encode", "overload"),
)
_USUAL_SOUND_DROPS: tuple[DropReason, ...] = ("corrupt", "overlap", "slow_gateway")


class StreamMetrics:
    """One stream's part of the metrics: its label sets appear with it and go with it."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._series = Series(stream)
        metrics.streams.append(self._series)
        self._relayed = False
        self._begin()

    def _begin(self) -> None:
        metrics = self._metrics
        self._cpu_s, self._pictures = 0.0, 0  # of the running worker, as last reported
        self._budget_s = 0.0
        self._node: str | None = None
        self._frames = self._series.of(metrics.frames)
        self._late = self._series.of(metrics.late)
        self._source_frames = self._series.of(metrics.source_frames)
        self.reconnects = self._series.of(metrics.reconnects)
        self.restarts = self._series.of(metrics.restarts)
        self.keyframe_requests = self._series.of(metrics.keyframe_requests)
        self.hls_requests = self._series.of(metrics.hls_requests)
        self.super_resolution = self._series.of(metrics.super_resolution)
        self.fallbacks = self._series.of(metrics.fallbacks)
        self._level = self._series.of(metrics.level)
        self.whep_viewers = self._series.of(metrics.viewers, "whep")
        self.hls_viewers = self._series.of(metrics.viewers, "hls")
        for stage, reason in _USUAL_DROPS:
            self._series.of(metrics.dropped, stage, reason)
        for reason in _USUAL_SOUND_DROPS:
            self._series.of(metrics.sound_dropped, reason)

    def relay(self) -> None:
        """The stream is at home at another gateway, which counts it: here there is what its viewers here
        have, and how late frames are with them."""
        self._relayed = True
        self._series.only = self._metrics.of_viewers

    def come_home(self) -> None:
        """What is of viewers goes on, all else begins."""
        self._relayed = False
        self._series.only = None
        self._series.keep(self._metrics.of_viewers)
        self._begin()

    def frame(
        self,
        stages_s: Mapping[Stage, float],
        latency_s: float,
        budget_s: float,
        late: bool,
        trace_id: str | None,
    ) -> None:
        if self._relayed:
            self._series.of(self._metrics.relayed_latency).observe(latency_s)
            return
        self._frames.inc()
        self._late.inc(late)
        if budget_s != self._budget_s:
            self._budget_s = budget_s
            self._series.of(self._metrics.budget).set(budget_s)
        self._series.of(self._metrics.latency).observe(
            latency_s, exemplar={"trace_id": trace_id} if trace_id else None
        )
        for stage, duration_s in stages_s.items():
            self._series.of(self._metrics.stage_duration, stage).observe(duration_s)

    def listed(self, latencies_s: Iterable[float]) -> None:
        for latency_s in latencies_s:
            self._series.of(self._metrics.hls_latency).observe(latency_s)

    def drop(self, dropped: Dropped) -> None:
        self._series.of(self._metrics.dropped, dropped.stage, dropped.reason).inc(dropped.count)

    def drop_sound(self, dropped: Dropped) -> None:
        self._series.of(self._metrics.sound_dropped, dropped.reason).inc(dropped.count)

    def network(self, round_trip_s: float | None, loss: float) -> None:
        """Of one viewer, as it is now. None: not measured yet."""
        if round_trip_s is not None:
            self._series.of(self._metrics.round_trip).observe(round_trip_s)
        self._series.of(self._metrics.loss).observe(loss)

    def renditions(self, viewers: Mapping[str, int]) -> None:
        """How many are sent each."""
        self._series.clear(self._metrics.rendition_viewers)
        for rendition, count in viewers.items():
            self._series.of(self._metrics.rendition_viewers, rendition).set(count)

    def subscribers(self, count: int) -> None:
        self._series.of(self._metrics.subscribers).set(count)

    def push(self, target: str, *, connected: bool) -> None:
        self._series.of(self._metrics.push, target).set(connected)

    def no_push(self, target: str) -> None:
        self._series.remove(self._metrics.push, target)

    def recording(self, on: bool | None) -> None:
        """None: it isn't to be recorded."""
        if on is None:
            self._series.clear(self._metrics.recording)
        else:
            self._series.of(self._metrics.recording).set(on)

    def enter(self, state: StreamState) -> None:
        for name in get_args(StreamState):
            self._series.of(self._metrics.state, name).set(name == state)

    def engine(self, engine: EngineFormat) -> None:
        self._series.clear(self._metrics.engine_info)
        self._series.of(self._metrics.engine_info, engine.model, engine.backend, engine.precision).set(1)
        if engine.parity_db is None:
            self._series.clear(self._metrics.parity)
        else:
            self._series.of(self._metrics.parity).set(engine.parity_db)

    def step(self, from_level: int, to_level: int) -> None:
        self._level.set(to_level)
        direction = "down" if to_level > from_level else "up"
        self._series.of(self._metrics.steps, direction).inc()

    def elsewhere(self, place: Elsewhere | None) -> None:
        """Where the worker is now."""
        offset, error = self._metrics.clock_offset, self._metrics.clock_error
        node = place.node if place is not None else None
        if node != self._node:
            self._series.clear(offset)
            self._series.clear(error)
            self._node = node
        if place is not None:
            self._series.of(offset, place.node).set(place.clock_offset_s)
            self._series.of(error, place.node).set(place.clock_error_s)

    def worker_started(self, *, isolated: bool) -> None:
        self._cpu_s, self._pictures = 0.0, 0
        self._series.of(self._metrics.isolated).set(isolated)

    def heartbeat(self, beat: Heartbeat) -> None:
        self._series.of(self._metrics.worker_memory).set(beat.rss_bytes)
        self._series.of(self._metrics.worker_cpu).inc(max(0.0, beat.cpu_s - self._cpu_s))
        self._source_frames.inc(max(0, beat.pictures - self._pictures))
        self._cpu_s, self._pictures = beat.cpu_s, beat.pictures
        for stage, length in beat.queues.items():
            self._series.of(self._metrics.queue_length, stage).set(length)

    def forget(self) -> None:
        """Safe more than once."""
        if self._series in self._metrics.streams:
            self._metrics.streams.remove(self._series)
