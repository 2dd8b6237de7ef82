"""The server's own figures, as its /metrics tells them to anyone."""

import time
from dataclasses import dataclass
from urllib.parse import urljoin

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtest.http import ServerError, request

GATEWAY_CPU = "process_cpu_seconds_total"
GATEWAY_RSS = "process_resident_memory_bytes"
GATEWAY_FILES = "process_open_fds"
WORKER_RSS = "livesr_worker_resident_memory_bytes"  # of every worker, by stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Every sample of one scrape, by name, summed over its labels."""

    at_s: float  # monotonic
    samples: dict[str, float]

    def __getitem__(self, name: str) -> float:
        """Raises ServerError where the service doesn't export that metric."""
        try:
            return self.samples[name]
        except KeyError:
            raise ServerError(f"the service's /metrics has no {name}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCounts:
    """One stream's frames since it was created; `latency` counts those within each bound, in seconds."""

    frames: float
    dropped: float
    latency: dict[float, float]

    def within(self, limit_s: float) -> float:
        """Frames of at most that latency, which must be a bucket's bound."""
        return self.latency[limit_s]


def count_stream(base: str, stream: str) -> StreamCounts:
    """Raises ServerError where the service doesn't know the stream."""
    frames, dropped, latency = 0.0, 0.0, {}
    for sample in _samples(base):
        if sample.labels.get("stream") != stream:
            continue
        match sample.name:
            case "livesr_frames_total":
                frames = sample.value
            case "livesr_frames_dropped_total":
                dropped += sample.value
            case "livesr_frame_latency_seconds_bucket":
                latency[float(sample.labels["le"])] = sample.value
    if not latency:
        raise ServerError(f"the service's /metrics has no stream {stream!r}")
    return StreamCounts(frames=frames, dropped=dropped, latency=latency)


def scrape(base: str) -> Scrape:
    """Reads /metrics once."""
    samples: dict[str, float] = {}
    for sample in _samples(base):
        samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
    return Scrape(at_s=time.monotonic(), samples=samples)


def _samples(base: str) -> list[Sample]:
    url = urljoin(base, "metrics")
    answer = request("GET", url)
    if answer.status != 200:
        raise ServerError(f"{url} answered {answer.reason()}")
    try:
        return [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    except ValueError as exc:
        raise ServerError(f"{url} is no Prometheus text: {exc}") from exc


def cpu_share(before: Scrape, after: Scrape) -> float:
    """How much of one core the gateway used between two scrapes: 1.0 is a whole core."""
    return (after[GATEWAY_CPU] - before[GATEWAY_CPU]) / (after.at_s - before.at_s)
