"""What Prometheus scrapes. The only file that imports prometheus_client."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.gateway.figures.views import StreamState
from server.gateway.placement import Elsewhere, SlotUse
from server.gateway.placement.capacity import Capacity
from server.wire.messages import Dropped, DropReason, EngineFormat, Heartbeat, Stage

# Frame budgets (120, 60, 40, 30, 20 and 15 fps) and their halves, then what is no longer live.
_BUCKETS = (
    *(0.001, 0.002, 0.004, 0.008, 0.012, 0.0167, 0.025, 0.0333, 0.05, 0.0667),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ROUND_TRIP_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.25, 0.5, 1.0, 2.0)
_LOSS_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
STAGES: tuple[Stage, ...] = get_args(Stage)

CONTENT_TYPE = CONTENT_TYPE_LATEST


M = TypeVar("M", Counter, Gauge, Histogram)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A metric as docs/metrics.md tells of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.described: list[Description] = []
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return self._add(Counter, name, text, "stream", *labels)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return self._add(Gauge, name, text, "stream", *labels)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return self._add(Histogram, name, text, "stream", *labels, buckets=buckets)

        self.stage_duration = histogram(
            "frame_stage_duration_seconds", "Time of a frame in one stage", _BUCKETS, "stage"
        )
        self.latency = histogram(
            "frame_latency_seconds",
            "From a frame's last byte in to its first bytes to the viewers",
            _BUCKETS,
        )
        self.hls_latency = histogram(
            "hls_frame_latency_seconds",
            "From a frame's last byte in to the listing of its HLS segment",
            _BUCKETS,
        )
        self.budget = gauge("latency_budget_seconds", "What a frame may take, without the demuxer's part")
        self.late = counter("frames_late_total", "Frames published after more than their latency budget")
        self.source_frames = counter("source_frames_total", "Pictures that the source has given")
        self.frames = counter("frames_total", "Frames published")
        self.dropped = counter("frames_dropped_total", "Frames that were not shown", "stage", "reason")
        self.viewers = gauge("viewers", "Viewers now", "protocol")
        self.rendition_viewers = gauge(
            "rendition_viewers", "Connected WebRTC viewers by what they are sent", "rendition"
        )
        self.round_trip = histogram(
            "viewer_round_trip_seconds",
            "To a WebRTC viewer and back, of each every two seconds",
            _ROUND_TRIP_BUCKETS,
        )
        self.loss = histogram(
            "viewer_loss_ratio",
            "Share of a WebRTC viewer's packets that are lost, of each every two seconds",
            _LOSS_BUCKETS,
        )
        self.queue_length = gauge("queue_length", "Frames waiting in front of a stage", "stage")
        self.reconnects = counter("source_reconnects_total", "Times the source was lost or not there")
        self.restarts = counter("worker_restarts_total", "Workers replaced after one died or hung")
        self.recording = gauge("recording", "1 while the stream is recorded, 0 while it should be and isn't")
        self.push = gauge("push", "1 while it is pushed there, 0 while it should be and isn't", "target")
        self.state = gauge("stream_state", "1 for the state the stream is in", "state")
        self.engine_info = gauge("engine_info", "1 for the engine in use", "model", "backend", "precision")
        self.super_resolution = gauge(
            "super_resolution",
            "1 while the network upscales, 0 while bicubic stands in for it or nothing runs",
        )
        self.fallbacks = counter("engine_fallbacks_total", "Times bicubic began to stand in for the engine")
        self.level = gauge("ladder_level", "Level of the ladder that upscales: 0 is the stream's own model")
        self.steps = counter("ladder_steps_total", "Steps to a smaller network, or back", "direction")
        self.parity = gauge("engine_parity_decibels", "PSNR of the engine's output against float32")
        self.isolated = gauge("worker_isolated", "1 while the stream is kept from others for their sake")
        self.worker_memory = gauge(
            "worker_resident_memory_bytes", "Resident memory of the worker, or the stream's part of it"
        )
        self.worker_cpu = counter(
            "worker_cpu_seconds_total", "User and system time of its workers, or its part of theirs"
        )
        self.clock_offset = gauge(
            "worker_clock_offset_seconds", "Clock of the worker's machine less this one's", "node"
        )
        self.clock_error = gauge(
            "worker_clock_error_seconds", "Bound on the error of that offset, and of latencies by it", "node"
        )
        self.keyframe_requests = counter("keyframe_requests_total", "Key frames asked of the encoder")
        self.hls_requests = counter("hls_requests_total", "Playlists and segments served")
        self.refused = self._add(
            Counter, "refused_total", "Requests and connections refused for a limit's sake", "reason"
        )
        self.gpu_slots = self._add(
            Gauge, "gpu_slots", "Streams on the GPU, and further usual ones that fit", "gpu"
        )
        self.gpu_slots_used = self._add(Gauge, "gpu_slots_used", "Streams with a worker on the GPU", "gpu")
        build = self._add(Gauge, "build_info", "1 for the version that runs", "version")
        build.labels(version("livesr")).set(1)

    def _add(self, kind: type[M], name: str, text: str, *labels: str, **options: Any) -> M:
        name = f"livesr_{name}"
        self.described.append(Description(name=name, kind=kind.__name__.lower(), labels=labels, text=text))
        return kind(name, text, labels, registry=self.registry, **options)

    def _ask(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is as `value` says at each scrape."""
        self._add(Gauge, name, text).set_function(value)

    def watch_streams(self, free: Callable[[], int]) -> None:
        """`free`: how many more would be let in."""
        self._ask("free_streams", "Further usual streams that would be let in now", free)

    def watch_disk(self, free_bytes: Callable[[], int], floor_bytes: int) -> None:
        """The disk of recordings, and how much of it these leave."""
        free = "Left on the disk of recordings, as last measured"
        self._ask("recording_disk_free_bytes", free, free_bytes)
        floor = "What recordings leave of their disk"
        self._ask("recording_disk_floor_bytes", floor, lambda: floor_bytes)

    def watch_uploads(self, waiting_bytes: Callable[[], int], failing: Callable[[], bool]) -> None:
        """Of finished recordings to `recording.remote`."""
        waiting = "Of finished recordings that wait to be sent to recording.remote"
        self._ask("recording_upload_waiting_bytes", waiting, waiting_bytes)
        self._ask("recording_upload_failing", "1 while none can be sent there", failing)

    def watch_gpus(self, slots: Callable[[], Sequence[SlotUse]]) -> None:
        """`slots` gives the same GPUs each time."""
        for place, use in enumerate(slots()):
            self.gpu_slots.labels(use.gpu.number).set_function(partial(_slots, slots, place))
            self.gpu_slots_used.labels(use.gpu.number).set_function(partial(_used, slots, place))

    def watch_capacity(
        self, capacity: Capacity, used: Callable[[], float], reserved: Callable[[], float]
    ) -> None:
        """`used` and `reserved`: cores that streams take now, and with the smallest networks."""
        self._ask("capacity_cores", "Cores that streams may use", lambda: capacity.usable_cores)
        self._ask("capacity_used_cores", "Cores that watched streams take, by measured costs", used)
        everything = "Cores that all streams take with their smallest networks"
        self._ask("capacity_reserved_cores", everything, reserved)
        left = Description(
            name="livesr_capacity_left_pixels_per_second",
            kind="gauge",
            labels=("model",),
            text="Further source pixels that a network could upscale, beside the smallest of all streams",
        )
        self.described.append(left)
        self.registry.register(_PixelsLeft(left, capacity, reserved))

    def count_refusal(self, reason: str) -> None:
        self.refused.labels(reason).inc()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """In the format that the header `Accept` prefers, and its content type. Exemplars are in OpenMetrics
        alone."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _slots(slots: Callable[[], Sequence[SlotUse]], place: int) -> float:
    return slots()[place].slots


def _used(slots: Callable[[], Sequence[SlotUse]], place: int) -> float:
    return slots()[place].used


class _PixelsLeft(Collector):
    """As it is when it is asked for: models become known while the service runs."""

    def __init__(self, told: Description, capacity: Capacity, reserved: Callable[[], float]) -> None:
        self._told = told
        self._capacity = capacity
        self._reserved = reserved

    def collect(self) -> Iterator[Metric]:
        capacity = self._capacity
        left = GaugeMetricFamily(self._told.name, self._told.text, labels=self._told.labels)
        for model, cost in capacity.costs.items():
            left.add_metric([model], max(0.0, capacity.usable_cores - self._reserved()) / cost * 1e6)
        yield left


# There from the start, at 0: `rate` doesn't see what a counter begins with.
_USUAL_DROPS: tuple[tuple[Stage, DropReason], ...] = (
    ("decode", "corrupt"),
    ("upscale", "engine_loading"),
    ("upscale", "overload"),
    ("encode", "overload"),
)


class StreamMetrics:
    """One stream's part of the metrics: its label sets appear with it and go with it."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream
        self._cpu_s, self._pictures = 0.0, 0  # of the running worker, as last reported
        self._budget_s = 0.0
        self._node: str | None = None
        # Of each metric, by the labels beside the stream's: looked for among those of all streams they would
        # cost each as much as there are streams.
        self._series: dict[Any, dict[tuple[str, ...], Any]] = {}
        self._stages = {stage: self._of(metrics.stage_duration, stage) for stage in STAGES}
        self._latency = self._of(metrics.latency)
        self._hls_latency = self._of(metrics.hls_latency)
        self._frames = self._of(metrics.frames)
        self._late = self._of(metrics.late)
        self._source_frames = self._of(metrics.source_frames)
        self.reconnects = self._of(metrics.reconnects)
        self.restarts = self._of(metrics.restarts)
        self.keyframe_requests = self._of(metrics.keyframe_requests)
        self.hls_requests = self._of(metrics.hls_requests)
        self.super_resolution = self._of(metrics.super_resolution)
        self.fallbacks = self._of(metrics.fallbacks)
        self._level = self._of(metrics.level)
        self._round_trip = self._of(metrics.round_trip)
        self._loss = self._of(metrics.loss)
        self.whep_viewers = self._of(metrics.viewers, "whep")
        self.hls_viewers = self._of(metrics.viewers, "hls")
        for stage, reason in _USUAL_DROPS:
            self._of(metrics.dropped, stage, reason)

    def frame(
        self,
        stages_s: Mapping[Stage, float],
        latency_s: float,
        budget_s: float,
        late: bool,
        trace_id: str | None,
    ) -> None:
        self._frames.inc()
        self._late.inc(late)
        if budget_s != self._budget_s:
            self._budget_s = budget_s
            self._of(self._metrics.budget).set(budget_s)
        self._latency.observe(latency_s, exemplar={"trace_id": trace_id} if trace_id else None)
        for stage, duration_s in stages_s.items():
            self._stages[stage].observe(duration_s)

    def listed(self, latencies_s: Iterable[float]) -> None:
        for latency_s in latencies_s:
            self._hls_latency.observe(latency_s)

    def drop(self, dropped: Dropped) -> None:
        self._of(self._metrics.dropped, dropped.stage, dropped.reason).inc(dropped.count)

    def network(self, round_trip_s: float | None, loss: float) -> None:
        """Of one viewer, as it is now. None: not measured yet."""
        if round_trip_s is not None:
            self._round_trip.observe(round_trip_s)
        self._loss.observe(loss)

    def renditions(self, viewers: Mapping[str, int]) -> None:
        """How many are sent each."""
        self._remove(self._metrics.rendition_viewers)
        for rendition, count in viewers.items():
            self._of(self._metrics.rendition_viewers, rendition).set(count)

    def push(self, target: str, *, connected: bool) -> None:
        self._of(self._metrics.push, target).set(connected)

    def no_push(self, target: str) -> None:
        self._remove(self._metrics.push, (target,))

    def recording(self, on: bool | None) -> None:
        """None: it isn't to be recorded."""
        if on is None:
            self._remove(self._metrics.recording)
        else:
            self._of(self._metrics.recording).set(on)

    def enter(self, state: StreamState) -> None:
        for name in get_args(StreamState):
            self._of(self._metrics.state, name).set(name == state)

    def engine(self, engine: EngineFormat) -> None:
        self._remove(self._metrics.engine_info)
        self._of(self._metrics.engine_info, engine.model, engine.backend, engine.precision).set(1)
        if engine.parity_db is None:
            self._remove(self._metrics.parity)
        else:
            self._of(self._metrics.parity).set(engine.parity_db)

    def step(self, from_level: int, to_level: int) -> None:
        self._level.set(to_level)
        direction = "down" if to_level > from_level else "up"
        self._of(self._metrics.steps, direction).inc()

    def elsewhere(self, place: Elsewhere | None) -> None:
        """Where the worker is now."""
        offset, error = self._metrics.clock_offset, self._metrics.clock_error
        node = place.node if place is not None else None
        if node != self._node:
            self._remove(offset)
            self._remove(error)
            self._node = node
        if place is not None:
            self._of(offset, place.node).set(place.clock_offset_s)
            self._of(error, place.node).set(place.clock_error_s)

    def worker_started(self, *, isolated: bool) -> None:
        self._cpu_s, self._pictures = 0.0, 0
        self._of(self._metrics.isolated).set(isolated)

    def heartbeat(self, beat: Heartbeat) -> None:
        self._of(self._metrics.worker_memory).set(beat.rss_bytes)
        self._of(self._metrics.worker_cpu).inc(max(0.0, beat.cpu_s - self._cpu_s))
        self._source_frames.inc(max(0, beat.pictures - self._pictures))
        self._cpu_s, self._pictures = beat.cpu_s, beat.pictures
        for stage, length in beat.queues.items():
            self._of(self._metrics.queue_length, stage).set(length)

    def forget(self) -> None:
        for metric in list(self._series):
            self._remove(metric)

    def _of(self, metric: M, *labels: str) -> M:
        series = self._series.setdefault(metric, {})
        if labels not in series:
            series[labels] = metric.labels(self._stream, *labels)
        child: M = series[labels]
        return child

    def _remove(self, metric: Counter | Gauge | Histogram, *which: tuple[str, ...]) -> None:
        """Those series, or all."""
        series = self._series.get(metric, {})
        for labels in which or tuple(series):
            if series.pop(labels, None) is not None:
                metric.remove(self._stream, *labels)
