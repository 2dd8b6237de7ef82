"""One stream: where its frames spend their time, and who gets them."""

from typing import get_args

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.common import ALL, ONE, livesr_board, quantiles, rate, stream_states
from deploy.grafana.panels import QUARTER, THIRD, graph, heat, row, states, variable
from server.wire.messages import Stage


def stream() -> Dashboard:
    made = livesr_board("stream", "one stream", "Where its frames spend their time, and who gets them.")
    made.with_variable(variable("stream", f"label_values(livesr_stream_state{{{ALL}}}, stream)"))
    made.with_panel(stream_states(ONE))
    engine = f"livesr_engine_info{{{ONE}}}"
    words = [("", "gray"), ("in use", "green")]
    made.with_panel(states("Engine", (engine, "{{model}} · {{backend}} · {{precision}}"), words=words))

    made.with_row(row("Latency"))
    made.with_panel(
        graph(
            "From the last byte in to the viewers",
            "s",
            *quantiles("livesr_frame_latency_seconds", ONE, 0.5, 0.95, 0.99),
            (f"livesr_latency_budget_seconds{{{ONE}}}", "budget"),
        )
    )
    made.with_panel(heat("The same, as a heat map", f"livesr_frame_latency_seconds_bucket{{{ONE}}}"))
    stages = rate("livesr_frame_stage_duration_seconds_sum", ONE)
    frames = rate("livesr_frame_stage_duration_seconds_count", ONE)
    made.with_panel(graph("Mean by stage", "s", (f"{stages} / {frames}", "{{stage}}"), stacked=True))
    for stage in get_args(Stage):
        buckets = f'livesr_frame_stage_duration_seconds_bucket{{{ONE}, stage="{stage}"}}'
        made.with_panel(heat(f"Stage: {stage}", buckets))
    late = f"{rate('livesr_frames_late_total', ONE)} / {rate('livesr_frames_total', ONE)}"
    made.with_panel(graph("Late frames", "percentunit", (late, "late")))
    hls = quantiles("livesr_hls_frame_latency_seconds", ONE, 0.5, 0.99)
    made.with_panel(graph("Until it is listed for HLS", "s", *hls))
    made.with_panel(graph("Queues", "none", (f"livesr_queue_length{{{ONE}}}", "{{stage}}")))

    made.with_row(row("Frames"))
    made.with_panel(
        graph(
            "In and out",
            "fps",
            (rate("livesr_source_frames_total", ONE), "in"),
            (rate("livesr_frames_total", ONE), "out"),
            width=QUARTER,
        )
    )
    dropped = f"sum by (stage, reason) ({rate('livesr_frames_dropped_total', ONE)})"
    made.with_panel(graph("Dropped", "fps", (dropped, "{{stage}}: {{reason}}"), width=QUARTER, stacked=True))
    sound = f"sum by (reason) ({rate('livesr_audio_packets_dropped_total', ONE)})"
    made.with_panel(graph("Sound dropped", "pps", (sound, "{{reason}}"), width=QUARTER, stacked=True))
    made.with_panel(
        graph(
            "Governor",
            "none",
            (f"livesr_ladder_level{{{ONE}}}", "level"),
            (f"livesr_super_resolution{{{ONE}}}", "super-resolution"),
            width=QUARTER,
            text="Level 0 is the stream's own network, the last one bicubic.",
        )
    )

    made.with_row(row("Viewers"))
    made.with_panel(
        graph("Viewers", "none", (f"livesr_viewers{{{ONE}}}", "{{protocol}}"), width=QUARTER, stacked=True)
    )
    rendition = f"livesr_rendition_viewers{{{ONE}}}"
    made.with_panel(
        graph("Renditions sent", "none", (rendition, "{{rendition}}"), width=QUARTER, stacked=True)
    )
    trips = quantiles("livesr_viewer_round_trip_seconds", ONE, 0.5, 0.95)
    made.with_panel(graph("Round trip to the viewers", "s", *trips, width=QUARTER))
    losses = quantiles("livesr_viewer_loss_ratio", ONE, 0.5, 0.95)
    made.with_panel(graph("Packets that viewers miss", "percentunit", *losses, width=QUARTER))
    keyframes = rate("livesr_keyframe_requests_total", ONE)
    made.with_panel(graph("Key frames asked for", "cps", (keyframes, "asked")))
    made.with_panel(graph("HLS requests", "reqps", (rate("livesr_hls_requests_total", ONE), "served")))
    made.with_panel(
        states(
            "Recorded and pushed",
            (f"livesr_recording{{{ONE}}}", "recording"),
            (f"livesr_push{{{ONE}}}", "{{target}}"),
            words=[("no", "red"), ("yes", "green")],
            width=THIRD,
        )
    )

    made.with_row(row("Worker"))
    made.with_panel(
        graph("Cores", "none", (rate("livesr_worker_cpu_seconds_total", ONE), "cores"), width=THIRD)
    )
    made.with_panel(graph("Memory", "bytes", (f"livesr_worker_resident_memory_bytes{{{ONE}}}", "resident")))
    lost = f"increase(livesr_source_reconnects_total{{{ONE}}}[$__rate_interval])"
    died = f"increase(livesr_worker_restarts_total{{{ONE}}}[$__rate_interval])"
    return made.with_panel(graph("Interruptions", "none", (lost, "source lost"), (died, "worker replaced")))
