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

from engine.backends.tensorrt.export import compile_graph, export_graph, half_frame_net
from engine.backends.tensorrt.request import BuildRequest
from engine.backends.tensorrt.store import (
    TensorRtArtifact,
    read_timing_cache,
    save_artifact,
    staging,
    write_timing_cache,
)
from engine.backends.tensorrt.target import current_target
from engine.errors import BuildFailed, EngineError
from engine.network.checkpoint import load_checkpoint

Say = Callable[[str], None]


def build_artifact(request: BuildRequest, folder: Path, say: Say = lambda stage: None) -> TensorRtArtifact:
    """Compiles on this process's GPU. Raises BuildFailed where GPU, libraries or checkpoint are not those of
    the request, BackendUnavailable, and what `load_checkpoint` raises."""
    here = current_target()
    if here != request.target:
        raise BuildFailed(f"the engine is asked for on {request.target}; here is {here}")
    checkpoint = load_checkpoint(request.checkpoint)
    if checkpoint.sha256 != request.checkpoint_sha256:
        raise BuildFailed(f"{request.checkpoint} is another file than the one that was asked for")
    say("exporting the graph")
    net = half_frame_net(checkpoint, request.colour)
    graph = export_graph(net, request.sizes, request.batch)
    say("compiling: TensorRT times its kernels on the GPU")
    start = time.monotonic()
    with staging(request, folder) as partial:
        timing_cache = partial / "timing.bin"
        timing_cache.write_bytes(read_timing_cache(request.target, folder))
        engine = compile_graph(graph, request.sizes, request.batch, timing_cache)
        write_timing_cache(request.target, folder, timing_cache.read_bytes())
    build_s = time.monotonic() - start
    say("saving the engine")
    facts = {
        "config": checkpoint.config.to_dict(),
        "provenance": checkpoint.provenance,
        "build_s": round(build_s, 1),
        **_facts(engine),
    }
    return save_artifact(request, folder, engine, facts)


def _facts(engine: bytes) -> dict[str, Any]:
    """What the engine says of itself to TensorRT's own runtime, which will run it."""
    import tensorrt

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise BuildFailed("TensorRT refuses the engine that it has just built")
    tensors = {}
    for i in range(loaded.num_io_tensors):
        name = loaded.get_tensor_name(i)
        way = "in" if loaded.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT else "out"
        plane = "y" if loaded.get_tensor_shape(name)[1] == 1 else "uv"
        tensors[f"{plane}_{way}"] = name
    return {"tensors": tensors, "layers": loaded.num_layers}


def main() -> int:
    folder, limit_s = Path(sys.argv[1]), int(sys.argv[2])
    say = Stages()
    signal.alarm(limit_s)  # ends an orphan, too
    os.nice(10)
    try:
        build_artifact(BuildRequest.from_json(sys.stdin.read()), folder, say)
    except EngineError as exc:
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
