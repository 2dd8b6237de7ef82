"""The server's own figures, as its /metrics tells them to anyone."""

import time
from dataclasses import dataclass
from urllib.parse import urljoin

from prometheus_client.parser import text_string_to_metric_families

from loadtest.http import ServerError, request

GATEWAY_CPU = "process_cpu_seconds_total"
GATEWAY_RSS = "process_resident_memory_bytes"
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


def scrape(base: str) -> Scrape:
    """Reads /metrics once."""
    url = urljoin(base, "metrics")
    answer = request("GET", url)
    at_s = time.monotonic()
    if answer.status != 200:
        raise ServerError(f"{url} answered {answer.reason()}")
    samples: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
    except ValueError as exc:
        raise ServerError(f"{url} is no Prometheus text: {exc}") from exc
    return Scrape(at_s=at_s, samples=samples)


def cpu_share(before: Scrape, after: Scrape) -> float:
    """How much of one core the gateway used between two scrapes: 1.0 is a whole core."""
    return (after[GATEWAY_CPU] - before[GATEWAY_CPU]) / (after.at_s - before.at_s)
