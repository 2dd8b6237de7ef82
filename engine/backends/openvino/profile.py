"""Where a frame's time goes inside the graph: OpenVINO's own counters, node by node."""

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import openvino as ov

from engine.artifact import Artifact
from engine.backends.openvino.engine import compile_model, frame_model
from engine.frame import Colour, Precision

# The end of a kernel's name: the type that it computes in.
_TYPES: dict[str, Precision] = {"I8": "int8", "bf16": "bf16", "f32": "float32"}
_WARM_UP_FRAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """`ms` is the median over the frames. `macs` are the multiply-adds that it executes, 0 where it is no
    convolution; `computes_in` is None where the kernel's name does not say."""

    name: str
    kind: str
    kernel: str
    computes_in: Precision | None
    ms: float
    macs: int


def profile_frame(
    artifact: Artifact, *, width: int, height: int, threads: int, seconds: float
) -> list[NodeTime]:
    """Every node that took time, in the order of the graph. Not counted: the copies of planes in and out."""
    core = ov.Core()
    model = frame_model(core, artifact, Colour())
    model.reshape({"y_in": [1, 1, height, width], "uv_in": [1, 2, height // 2, width // 2]})
    macs = {
        node.get_friendly_name(): int(np.prod(node.output(0).shape) * np.prod(node.input_value(1).shape[1:]))
        for node in model.get_ops()
        if node.get_type_name() == "Convolution"
    }
    request = compile_model(
        core, model, artifact.manifest.precision, threads, counters=True
    ).create_infer_request()
    rng = np.random.default_rng(0)
    for name in ("y_in", "uv_in"):
        planes = request.get_tensor(name)
        planes.data[:] = rng.integers(16, 236, planes.shape)
    for _ in range(_WARM_UP_FRAMES):
        request.infer()
    times_ms, nodes = defaultdict[str, list[float]](list), {}
    end_s = time.perf_counter() + seconds
    while not times_ms or time.perf_counter() < end_s:
        request.infer()
        for node in request.get_profiling_info():
            nodes[node.node_name] = node
            times_ms[node.node_name].append(1e3 * node.real_time.total_seconds())
    return [
        NodeTime(
            name=name,
            kind=nodes[name].node_type,
            kernel=nodes[name].exec_type,
            computes_in=_TYPES.get(nodes[name].exec_type.rpartition("_")[2]),
            ms=statistics.median(times),
            macs=macs.get(name, 0),
        )
        for name, times in times_ms.items()
        if any(times)
    ]
