"""The process that builds one TensorRT engine, so that neither a stream's frames nor its process wait for it:

python -m engine.backends.tensorrt.build FOLDER SECONDS < request.json
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.backends.cuda.measure import measure_performance
from engine.backends.tensorrt.engine import TensorRtEngine
from engine.backends.tensorrt.export import compile_graph, export_graph, half_frame_net, merge_timing_caches
from engine.backends.tensorrt.request import BuildRequest
from engine.backends.tensorrt.store import (
    TensorRtArtifact,
    add_to_timing_cache,
    read_timing_cache,
    save_artifact,
    staging,
)
from engine.backends.tensorrt.target import current_target
from engine.errors import BuildFailed, DeviceFailed, EngineError
from engine.frame import network_spec
from engine.network.checkpoint import Checkpoint, load_checkpoint
from engine.sample_frames import DEFAULT, sample_frames
from engine.shipped import model_name

Say = Callable[[str], None]


def build_artifact(request: BuildRequest, folder: Path, say: Say = lambda stage: None) -> TensorRtArtifact:
    """Compiles and measures on this process's GPU. An engine that is too far from the reference is kept, too:
    who loads it refuses it, and nobody builds it again. Raises BuildFailed where GPU, libraries or checkpoint
    are not those of the request, BackendUnavailable, DeviceFailed, and what `load_checkpoint` raises."""
    here = current_target()
    if request.target not in (here, here.any_gpu()):
        raise BuildFailed(f"the engine is asked for on {request.target}; here is {here}")
    checkpoint = load_checkpoint(request.checkpoint)
    if checkpoint.sha256 != request.checkpoint_sha256:
        raise BuildFailed(f"{request.checkpoint} is another file than the one that was asked for")
    say("exporting the graph")
    calibration = []
    if request.precision == "int8":  # the other half of the frames measures parity of artifacts for the CPU
        calibration = [frame.net_input(checkpoint.config.colour) for frame in sample_frames(DEFAULT)[::2]]
    net = half_frame_net(checkpoint, request.colour, calibration)
    graph = export_graph(net, request.sizes, request.batches)
    say("compiling: TensorRT times its kernels on the GPU")
    start = time.monotonic()
    with staging(request, folder) as partial:
        timing_cache = partial / "timing.bin"
        timing_cache.write_bytes(read_timing_cache(request.target, folder))
        plan = compile_graph(
            graph, request.sizes, request.batches, timing_cache, any_gpu=request.target.portable
        )
        add_to_timing_cache(request.target, folder, timing_cache.read_bytes(), merge_timing_caches)
    build_s = time.monotonic() - start
    say("measuring: parity, lanes, latency, memory")
    facts = {
        "config": checkpoint.config.to_dict(),
        "provenance": checkpoint.provenance,
        "build_s": round(build_s, 1),
        "gpu": here.gpu,
        **_measured(plan, request, checkpoint),
    }
    say("saving the engine")
    return save_artifact(request, folder, plan, facts)


def _measured(plan: bytes, request: BuildRequest, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the plan is and does in the runtime that will run it. Raises PlanRefused, DeviceFailed."""
    performance = {}
    for width, height in dict.fromkeys(
        (request.sizes.typical, request.sizes.smallest, request.sizes.largest)
    ):
        spec = network_spec(
            checkpoint.config,
            model=model_name(request.checkpoint),
            backend="tensorrt",
            precision=request.precision,
            checkpoint_sha256=checkpoint.sha256,
            width=width,
            height=height,
        )
        engine = TensorRtEngine(plan, spec, name="the plan that it has just built")
        performance[f"{width}x{height}"] = measure_performance(engine, checkpoint, request.colour).to_dict()
    return {"layers": engine.layers, "performance": performance}


def main() -> int:
    folder, limit_s = Path(sys.argv[1]), int(sys.argv[2])
    say = Stages()
    signal.alarm(limit_s)  # ends an orphan, too
    os.nice(10)
    try:
        build_artifact(BuildRequest.from_json(sys.stdin.read()), folder, say)
    except (EngineError, DeviceFailed) as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


class Stages:
    """The process's stdout, which carries nothing else: what libraries print there goes to stderr."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stdout = os.dup(1)
        os.dup2(2, 1)

    def __call__(self, stage: str) -> None:
        with suppress(BrokenPipeError):  # who asked is gone; the next one will want the engine
            os.write(self._stdout, f"{stage}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
