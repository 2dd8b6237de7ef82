"""What Prometheus scrapes. The only file that imports prometheus_client."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.gateway.placement import SlotUse
from server.gateway.placement.capacity import Capacity

# Frame budgets (120, 60, 40, 30, 20 and 15 fps) and their halves, then what is no longer live.
_BUCKETS = (
    *(0.001, 0.002, 0.004, 0.008, 0.012, 0.0167, 0.025, 0.0333, 0.05, 0.0667),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ROUND_TRIP_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.25, 0.5, 1.0, 2.0)
_LOSS_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Prometheus would take the time at which each counter began for a series more of each.
disable_created_metrics()  # type: ignore[no-untyped-call]


# A family's lines of both formats: what it is, then its samples.
_FAMILY = re.compile(rb"(# HELP .*\n# TYPE .*\n(?:# UNIT .*\n)?)((?:[^#].*\n)*)")
_EOF = b"# EOF\n"

M = TypeVar("M", Counter, Gauge, Histogram)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A metric as docs/metrics.md tells of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family(Generic[M]):
    """A metric of streams. Each has it to itself: what concerns one goes through none of the others."""

    kind: type[M]
    name: str
    text: str
    labels: tuple[str, ...]
    options: Mapping[str, Any]

    def make(self) -> M:
        return self.kind(self.name, self.text, self.labels, registry=None, **self.options)


class Series(Collector):
    """One stream's, of every family that it has a value of."""

    def __init__(self, stream: str) -> None:
        self.only: frozenset[str] | None = None  # names of the families that are told; None: all
        self._stream = stream
        self._families: dict[str, Any] = {}
        self._found: dict[tuple[str, ...], Any] = {}  # by family and labels: frames ask for the same ones

    def of(self, family: Family[M], *labels: str) -> M:
        """`labels` beside the stream's."""
        key = (family.name, *labels)
        found: M | None = self._found.get(key)
        if found is None:
            own = self._families.get(family.name) or self._families.setdefault(family.name, family.make())
            found = self._found[key] = own.labels(self._stream, *labels)
        return found

    def clear(self, family: Family[M]) -> None:
        self._found = {key: found for key, found in self._found.items() if key[0] != family.name}
        self._families.pop(family.name, None)

    def keep(self, names: frozenset[str]) -> None:
        """Of the other families nothing is left."""
        self._found = {key: found for key, found in self._found.items() if key[0] in names}
        self._families = {name: own for name, own in self._families.items() if name in names}

    def remove(self, family: Family[M], *labels: str) -> None:
        if self._found.pop((family.name, *labels), None) is not None:
            self._families[family.name].remove(self._stream, *labels)

    def collect(self) -> Iterator[Metric]:
        for name, own in list(self._families.items()):
            if self.only is None or name in self.only:
                yield from own.collect()


class Metrics:
    """All metrics of one gateway: those of streams, and its own in a registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.streams: list[Series] = []
        self.described: list[Description] = []
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Family[Counter]:
            return of_streams(Counter, name, text, labels)

        def gauge(name: str, text: str, *labels: str) -> Family[Gauge]:
            return of_streams(Gauge, name, text, labels)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Family[Histogram]:
            return of_streams(Histogram, name, text, labels, buckets=buckets)

        def of_streams(
            kind: type[M], name: str, text: str, labels: tuple[str, ...], **options: Any
        ) -> Family[M]:
            told = self._describe(kind, name, text, "stream", *labels)
            return Family(kind=kind, name=told.name, text=text, labels=told.labels, options=options)

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
        self.sound_dropped = counter(
            "audio_packets_dropped_total", "Packets of sound, in each codec, that were not heard", "reason"
        )
        self.relayed_latency = histogram(
            "relayed_frame_latency_seconds",
            "From a frame's last byte in, at its home, to its first bytes to the viewers of this gateway",
            _BUCKETS,
        )
        self.subscribers = gauge("subscribers", "Other gateways that its packets are passed on to")
        self.viewers = gauge("viewers", "Viewers of this gateway now", "protocol")
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
        self.push = gauge(
            "push",
            "1 while it is pushed there, 0 while it should be and isn't; target as in the API",
            "target",
        )
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

    @property
    def of_viewers(self) -> frozenset[str]:
        """What there is of a stream that is at home at another gateway, which counts the rest."""
        of_viewers = (self.viewers, self.rendition_viewers, self.round_trip, self.loss)
        others = (self.hls_requests, self.dropped, self.relayed_latency)
        return frozenset(family.name for family in (*of_viewers, *others))

    def _add(self, kind: type[M], name: str, text: str, *labels: str) -> M:
        return kind(self._describe(kind, name, text, *labels).name, text, labels, registry=self.registry)

    def _describe(self, kind: type[M], name: str, text: str, *labels: str) -> Description:
        told = Description(name=f"livesr_{name}", kind=kind.__name__.lower(), labels=labels, text=text)
        self.described.append(told)
        return told

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

    async def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """In the format that the header `Accept` prefers, and its content type. Exemplars are in OpenMetrics
        alone. A stream takes about a millisecond: between any two of them others have their turn."""
        encode, content_type = choose_encoder(accept)
        families: dict[bytes, list[bytes]] = {}
        end = b""
        for part in (self.registry, *self.streams):
            text = encode(part)
            end = _EOF if text.endswith(_EOF) else b""
            for head, samples in _FAMILY.findall(text):
                families.setdefault(head, [head]).append(samples)
            await asyncio.sleep(0)
        return b"".join(line for lines in families.values() for line in lines) + end, content_type


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
