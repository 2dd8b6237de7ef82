"""Every stream at a glance."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.common import ALL, livesr_board, quantile, rate, stream_states
from deploy.grafana.panels import WHOLE, graph, number


def overview() -> Dashboard:
    made = livesr_board("overview", "overview", "Every stream at a glance: which one to look at.")
    for title, unit, query in (
        ("Instances that answer", "none", 'sum(up{job="livesr"})'),
        ("Streams", "none", f"count(livesr_stream_state{{{ALL}}} == 1)"),
        ("Running", "none", f'sum(livesr_stream_state{{{ALL}, state="running"}})'),
        ("Viewers", "none", f"sum(livesr_viewers{{{ALL}}})"),
        ("Frames a second", "none", f"sum({rate('livesr_frames_total', ALL)})"),
        ("Free streams", "none", f"sum(livesr_free_streams{{{ALL}}})"),
    ):
        made.with_panel(number(title, unit, query))
    made.with_panel(stream_states(ALL, width=WHOLE))
    late = f"{rate('livesr_frames_late_total', ALL)} / {rate('livesr_frames_total', ALL)}"
    made.with_panel(
        graph("Late frames", "percentunit", (late, "{{stream}}"), text="Above their budget; 1 % is allowed.")
    )
    made.with_panel(
        graph(
            "Latency, p99", "s", (quantile(0.99, "livesr_frame_latency_seconds", ALL, "stream"), "{{stream}}")
        )
    )
    frames = f"sum by (stream) ({rate('livesr_frames_total', ALL)})"
    made.with_panel(graph("Frames published", "fps", (frames, "{{stream}}")))
    dropped = f"sum by (stream) ({rate('livesr_frames_dropped_total', ALL)})"
    made.with_panel(graph("Frames dropped", "fps", (dropped, "{{stream}}")))
    level = f"max by (stream) (livesr_ladder_level{{{ALL}}})"
    made.with_panel(
        graph("Level of the ladder", "none", (level, "{{stream}}"), text="0 is the stream's own network.")
    )
    viewers = f"sum by (stream) (livesr_viewers{{{ALL}}})"
    made.with_panel(graph("Viewers", "none", (viewers, "{{stream}}"), stacked=True))
    reconnects = f"sum by (stream) (increase(livesr_source_reconnects_total{{{ALL}}}[$__rate_interval]))"
    restarts = f"sum by (stream) (increase(livesr_worker_restarts_total{{{ALL}}}[$__rate_interval]))"
    made.with_panel(graph("Sources lost", "none", (reconnects, "{{stream}}")))
    made.with_panel(graph("Workers replaced", "none", (restarts, "{{stream}}")))
    refused = f"sum by (reason) ({rate('livesr_refused_total', ALL)})"
    return made.with_panel(graph("Refused", "reqps", (refused, "{{reason}}")))
