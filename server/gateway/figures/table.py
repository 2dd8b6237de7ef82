"""docs/metrics.md, made of the metrics themselves: `python -m server.gateway.figures.table` prints it."""

from types import SimpleNamespace
from typing import Any

from server.gateway.figures.metrics import Description, Metrics

_HEAD = """# Metrics

What `/metrics` serves, for [dashboards](dashboards.md) and [alerts](runbook.md). The code makes this page:
`python -m server.gateway.figures.table > docs/metrics.md`.

A counter starts again at 0 with the service: use `rate` and `increase`. A histogram NAME is three metrics:
`NAME_bucket` with the label `le`, `NAME_sum` and `NAME_count`. What has the label `stream` appears with the
stream and goes with it. `stage` is one of `demux`, `decode`, `queue`, `upscale`, `encode` and `publish`, as a
frame passes them.

Of [several gateways](cluster.md) each has its own metrics. A stream counts at the gateway that is its home.
Where another one relays it to viewers of its own, that one has what is of those viewers (`livesr_viewers`,
`livesr_rendition_viewers`, `livesr_viewer_round_trip_seconds`, `livesr_viewer_loss_ratio`,
`livesr_hls_requests_total`, `livesr_frames_dropped_total` of slow ones) and
`livesr_relayed_frame_latency_seconds`, so that a sum over gateways counts nothing twice.

| Name | Type | Labels | Unit | Meaning |
|---|---|---|---|---|
"""
_FROM_THE_CLIENT = """
## Of the gateway's process

What the Prometheus client library says of the process and of Python.

| Name | Type | Labels | Unit | Meaning |
|---|---|---|---|---|
"""
# By how a name ends.
_UNITS = {
    "pixels_per_second": "pixels a second",
    "seconds": "seconds",
    "seconds_total": "seconds",
    "bytes": "bytes",
    "ratio": "0 to 1",
    "decibels": "dB",
    "cores": "cores",
}


def every_metric() -> Metrics:
    """Those as well that appear only where there is something to watch."""
    metrics = Metrics()
    metrics.watch_streams(lambda: 0)
    metrics.watch_disk(lambda: 0, 0)
    metrics.watch_uploads(lambda: 0, lambda: False)
    nothing: Any = SimpleNamespace(usable_cores=0.0, costs={})
    metrics.watch_capacity(nothing, lambda: 0.0, lambda: 0.0)
    return metrics


def markdown() -> str:
    """The whole page."""
    metrics = every_metric()
    ours = sorted(metrics.described, key=lambda told: told.name)
    return _HEAD + _rows(ours) + _FROM_THE_CLIENT + _rows(_of_the_client(metrics))


def _of_the_client(metrics: Metrics) -> list[Description]:
    families = [f for f in metrics.registry.collect() if not f.name.startswith("livesr_")]
    return [
        Description(
            name=family.name + ("_total" if family.type == "counter" else ""),
            kind=family.type,
            labels=tuple(sorted({label for sample in family.samples for label in sample.labels})),
            text=family.documentation.rstrip("."),
        )
        for family in sorted(families, key=lambda family: family.name)
    ]


def _rows(descriptions: list[Description]) -> str:
    return "".join(
        f"| `{told.name}` | {told.kind} | {_code(told.labels)} | {_unit(told.name)} | {told.text} |\n"
        for told in descriptions
    )


def _code(labels: tuple[str, ...]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _unit(name: str) -> str:
    fitting = [ending for ending in _UNITS if name.endswith(f"_{ending}")]
    return _UNITS[max(fitting, key=len)] if fitting else ""


if __name__ == "__main__":
    print(markdown(), end="")
