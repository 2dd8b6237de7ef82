"""What Prometheus scrapes. The only file that imports prometheus_client."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.gateway.figures.views import StreamState
from server.gateway.placement import Elsewhere, SlotUse
from server.gateway.placement.capacity import Capacity
from server.wire.messages import Dropped, EngineFormat, Heartbeat, Stage

# Frame budgets (120, 60, 40, 30, 20 and 15 fps) and their halves, then what is no longer live.
_BUCKETS = (
    *(0.001, 0.002, 0.004, 0.008, 0.012, 0.0167, 0.025, 0.0333, 0.05, 0.0667),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
STAGES: tuple[Stage, ...] = get_args(Stage)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"livesr_{name}", text, ("stream", *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"livesr_{name}", text, ("stream", *labels), registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"livesr_{name}", text, ("stream", *labels), registry=registry, buckets=_BUCKETS)

        self.stage_duration = histogram(
            "frame_stage_duration_seconds", "Time of a frame in one stage", "stage"
        )
        self.latency = histogram(
            "frame_latency_seconds",
            "From a frame's last byte in to its first bytes to the viewers",
        )
        self.hls_latency = histogram(
            "hls_frame_latency_seconds", "From a frame's last byte in to the listing of its HLS segment"
        )
        self.frames = counter("frames_total", "Frames published")
        self.dropped = counter("frames_dropped_total", "Frames that were not shown", "stage", "reason")
        self.viewers = gauge("viewers", "Viewers now", "protocol")
        self.queue_length = gauge("queue_length", "Frames waiting in front of a stage", "stage")
        self.reconnects = counter("source_reconnects_total", "Times the source was lost or not there")
        self.restarts = counter("worker_restarts_total", "Workers replaced after one died or hung")
        self.recording = gauge("recording", "1 while the stream is recorded, 0 while it should be and isn't")
        self.push = gauge("push", "1 while it is pushed there, 0 while it should be", "target")
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
        self.worker_cpu = counter("worker_cpu_seconds_total", "User and system time of the workers, likewise")
        self.clock_offset = gauge(
            "worker_clock_offset_seconds", "Clock of the worker's machine less this one's", "node"
        )
        self.clock_error = gauge(
            "worker_clock_error_seconds", "Bound on the error of that offset, and of latencies by it", "node"
        )
        self.keyframe_requests = counter("keyframe_requests_total", "Key frames asked of the encoder")
        self.hls_requests = counter("hls_requests_total", "Playlists and segments served")
        self.refused = Counter(
            "livesr_refused_total",
            "Requests and connections refused for a limit's sake",
            ("reason",),
            registry=registry,
        )
        self.gpu_slots = Gauge(
            "livesr_gpu_slots",
            "Streams on the GPU, and further usual ones that fit",
            ("gpu",),
            registry=registry,
        )
        self.gpu_slots_used = Gauge(
            "livesr_gpu_slots_used", "Streams with a worker on the GPU", ("gpu",), registry=registry
        )
        self.per_stream = (
            *(self.stage_duration, self.latency, self.frames, self.dropped, self.viewers, self.queue_length),
            self.hls_latency,
            *(self.reconnects, self.restarts, self.state, self.engine_info, self.parity, self.worker_memory),
            *(self.worker_cpu, self.keyframe_requests, self.hls_requests, self.super_resolution),
            *(self.clock_offset, self.clock_error),
            *(self.fallbacks, self.level, self.steps, self.isolated, self.recording, self.push),
        )

    def watch_gpus(self, slots: Callable[[], Sequence[SlotUse]]) -> None:
        """`slots` gives the same GPUs each time."""
        for place, use in enumerate(slots()):
            self.gpu_slots.labels(use.gpu.number).set_function(partial(_slots, slots, place))
            self.gpu_slots_used.labels(use.gpu.number).set_function(partial(_used, slots, place))

    def watch_capacity(
        self, capacity: Capacity, used: Callable[[], float], reserved: Callable[[], float]
    ) -> None:
        """`used` and `reserved`: cores that streams take now, and with the smallest networks."""
        self.registry.register(_CapacityCollector(capacity, used, reserved))

    def count_refusal(self, reason: str) -> None:
        self.refused.labels(reason).inc()

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


def _slots(slots: Callable[[], Sequence[SlotUse]], place: int) -> float:
    return slots()[place].slots


def _used(slots: Callable[[], Sequence[SlotUse]], place: int) -> float:
    return slots()[place].used


class _CapacityCollector(Collector):
    """As it is when it is asked for: models become known while the service runs."""

    def __init__(self, capacity: Capacity, used: Callable[[], float], reserved: Callable[[], float]) -> None:
        self._capacity = capacity
        self._used = used
        self._reserved = reserved

    def collect(self) -> Iterator[Metric]:
        capacity, reserved = self._capacity, self._reserved()
        for name, text, cores in (
            ("cores", "Cores that streams may use", capacity.usable_cores),
            ("used_cores", "Cores that watched streams take, by measured costs", self._used()),
            ("reserved_cores", "Cores that all streams take with their smallest networks", reserved),
        ):
            yield GaugeMetricFamily(f"livesr_capacity_{name}", text, value=cores)
        left = GaugeMetricFamily(
            "livesr_capacity_left_pixels_per_second",
            "Further source pixels that a network could upscale, beside the smallest ones of all streams",
            labels=["model"],
        )
        for model, cost in capacity.costs.items():
            left.add_metric([model], max(0.0, capacity.usable_cores - reserved) / cost * 1e6)
        yield left


class StreamMetrics:
    """One stream's part of the metrics: its label sets appear with it and go with it."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream
        self._cpu_s = 0.0  # of the running worker, as last reported
        self._stages = {stage: metrics.stage_duration.labels(stream, stage) for stage in STAGES}
        self._latency = metrics.latency.labels(stream)
        self._hls_latency = metrics.hls_latency.labels(stream)
        self._frames = metrics.frames.labels(stream)
        self.reconnects = metrics.reconnects.labels(stream)
        self.restarts = metrics.restarts.labels(stream)
        self.keyframe_requests = metrics.keyframe_requests.labels(stream)
        self.hls_requests = metrics.hls_requests.labels(stream)
        self.super_resolution = metrics.super_resolution.labels(stream)
        self.fallbacks = metrics.fallbacks.labels(stream)
        self._level = metrics.level.labels(stream)
        self.whep_viewers = metrics.viewers.labels(stream, "whep")
        self.hls_viewers = metrics.viewers.labels(stream, "hls")

    def frame(self, stages_s: Mapping[Stage, float], latency_s: float) -> None:
        self._frames.inc()
        self._latency.observe(latency_s)
        for stage, duration_s in stages_s.items():
            self._stages[stage].observe(duration_s)

    def listed(self, latencies_s: Iterable[float]) -> None:
        for latency_s in latencies_s:
            self._hls_latency.observe(latency_s)

    def drop(self, dropped: Dropped) -> None:
        self._metrics.dropped.labels(self._stream, dropped.stage, dropped.reason).inc(dropped.count)

    def push(self, target: str, *, connected: bool) -> None:
        self._metrics.push.labels(self._stream, target).set(connected)

    def no_push(self, target: str) -> None:
        self._metrics.push.remove_by_labels({"stream": self._stream, "target": target})

    def recording(self, on: bool | None) -> None:
        """None: it isn't to be recorded."""
        if on is None:
            self._metrics.recording.remove_by_labels({"stream": self._stream})
        else:
            self._metrics.recording.labels(self._stream).set(on)

    def enter(self, state: StreamState) -> None:
        for name in get_args(StreamState):
            self._metrics.state.labels(self._stream, name).set(name == state)

    def engine(self, engine: EngineFormat) -> None:
        self._metrics.engine_info.remove_by_labels({"stream": self._stream})
        self._metrics.engine_info.labels(self._stream, engine.model, engine.backend, engine.precision).set(1)
        if engine.parity_db is None:
            self._metrics.parity.remove_by_labels({"stream": self._stream})
        else:
            self._metrics.parity.labels(self._stream).set(engine.parity_db)

    def step(self, from_level: int, to_level: int) -> None:
        self._level.set(to_level)
        direction = "down" if to_level > from_level else "up"
        self._metrics.steps.labels(self._stream, direction).inc()

    def elsewhere(self, place: Elsewhere | None) -> None:
        """Where the worker is now."""
        offset, error = self._metrics.clock_offset, self._metrics.clock_error
        for metric in (offset, error):
            metric.remove_by_labels({"stream": self._stream})
        if place is not None:
            offset.labels(self._stream, place.node).set(place.clock_offset_s)
            error.labels(self._stream, place.node).set(place.clock_error_s)

    def worker_started(self, *, isolated: bool) -> None:
        self._cpu_s = 0.0
        self._metrics.isolated.labels(self._stream).set(isolated)

    def heartbeat(self, beat: Heartbeat) -> None:
        self._metrics.worker_memory.labels(self._stream).set(beat.rss_bytes)
        self._metrics.worker_cpu.labels(self._stream).inc(max(0.0, beat.cpu_s - self._cpu_s))
        self._cpu_s = beat.cpu_s
        for stage, length in beat.queues.items():
            self._metrics.queue_length.labels(self._stream, stage).set(length)

    def forget(self) -> None:
        for metric in self._metrics.per_stream:
            metric.remove_by_labels({"stream": self._stream})
