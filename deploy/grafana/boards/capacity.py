"""What the machines carry, and what is left."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.boards.common import ALL, livesr_board, rate
from deploy.grafana.panels import graph


def capacity() -> Dashboard:
    made = livesr_board("capacity", "capacity", "What the machines carry, and what is left.")
    made.with_panel(
        graph(
            "Cores for streams",
            "none",
            (f"sum(livesr_capacity_cores{{{ALL}}})", "there are"),
            (f"sum(livesr_capacity_used_cores{{{ALL}}})", "taken by what is watched"),
            (f"sum(livesr_capacity_reserved_cores{{{ALL}}})", "taken by all, with the smallest networks"),
            text="By measured costs; streams on GPUs are counted by slots.",
        )
    )
    made.with_panel(graph("Free streams", "none", (f"livesr_free_streams{{{ALL}}}", "{{instance}}")))
    left = f"sum by (model) (livesr_capacity_left_pixels_per_second{{{ALL}}})"
    made.with_panel(graph("Further source pixels a second", "short", (left, "{{model}}")))
    cores = f"sum by (stream) ({rate('livesr_worker_cpu_seconds_total', ALL)})"
    made.with_panel(graph("Cores by stream", "none", (cores, "{{stream}}"), stacked=True))
    memory = f"sum by (stream) (livesr_worker_resident_memory_bytes{{{ALL}}})"
    made.with_panel(graph("Memory by stream", "bytes", (memory, "{{stream}}"), stacked=True))
    gateway = f'{{job="livesr", {ALL}}}'
    made.with_panel(
        graph(
            "The gateway's process: cores",
            "none",
            (f"rate(process_cpu_seconds_total{gateway}[$__rate_interval])", "{{instance}}"),
        )
    )
    made.with_panel(
        graph(
            "The gateway's process: memory",
            "bytes",
            (f"process_resident_memory_bytes{gateway}", "{{instance}}"),
        )
    )
    made.with_panel(
        graph(
            "Disk of recordings",
            "bytes",
            (f"livesr_recording_disk_free_bytes{{{ALL}}}", "{{instance}}: left"),
            (f"livesr_recording_disk_floor_bytes{{{ALL}}}", "{{instance}}: left alone"),
        )
    )
    refused = f"sum by (reason) ({rate('livesr_refused_total', ALL)})"
    return made.with_panel(graph("Refused", "reqps", (refused, "{{reason}}")))
