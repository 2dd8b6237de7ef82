"""GPUs, by NVIDIA's dcgm-exporter."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.panels import THIRD, board, graph, variable


def gpu() -> Dashboard:
    made = board("gpu", "GPU", "Each GPU by NVIDIA's dcgm-exporter, and the service's slots on it.")
    made.with_variable(variable("gpu", "label_values(DCGM_FI_DEV_GPU_UTIL, gpu)", many=True))
    for title, unit, name, scale in (
        ("Busy", "percentunit", "DCGM_FI_DEV_GPU_UTIL", " / 100"),
        ("Tensor cores busy", "percentunit", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", ""),
        ("Memory's interface busy", "percentunit", "DCGM_FI_DEV_MEM_COPY_UTIL", " / 100"),
        ("Decoder busy", "percentunit", "DCGM_FI_DEV_DEC_UTIL", " / 100"),
        ("Encoder busy", "percentunit", "DCGM_FI_DEV_ENC_UTIL", " / 100"),
        ("Memory used", "bytes", "DCGM_FI_DEV_FB_USED", " * 1024 * 1024"),
        ("Memory free", "bytes", "DCGM_FI_DEV_FB_FREE", " * 1024 * 1024"),
        ("Power", "watt", "DCGM_FI_DEV_POWER_USAGE", ""),
        ("Temperature", "celsius", "DCGM_FI_DEV_GPU_TEMP", ""),
        ("Clock of the multiprocessors", "hertz", "DCGM_FI_DEV_SM_CLOCK", " * 1000 * 1000"),
        ("Last XID error", "none", "DCGM_FI_DEV_XID_ERRORS", ""),
    ):
        query = f'max by (Hostname, gpu) ({name}{{gpu=~"$gpu"}}){scale}'
        made.with_panel(graph(title, unit, (query, "{{Hostname}} {{gpu}}")))
    slots = 'livesr_gpu_slots_used{gpu=~"$gpu"}', 'livesr_gpu_slots{gpu=~"$gpu"}'
    return made.with_panel(
        graph("Streams", "none", (slots[0], "{{gpu}}: on it"), (slots[1], "{{gpu}}: that fit"), width=THIRD)
    )
