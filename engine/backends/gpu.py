"""Engines on an NVIDIA GPU, and how they are loaded.

Modules that import torch are imported inside: `engine.load` imports this one in processes that have no GPU.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends.gate import passed
from engine.backends.require_gpu import require_gpu
from engine.backends.tensorrt.builds import load_artifact
from engine.backends.tensorrt.request import BuildRequest, Sizes
from engine.backends.tensorrt.store import TensorRtArtifact, artifacts_folder, faster_int8
from engine.errors import PlanRefused
from engine.frame import Colour, EngineSpec, GpuEngine

if TYPE_CHECKING:
    from engine.backends.cuda.engine import CudaEngine
    from engine.backends.tensorrt.engine import TensorRtEngine
    from engine.network.checkpoint import Checkpoint

# A large network for a large frame takes minutes; one that takes this long hangs.
BUILD_TIMEOUT_S = 1800.0
_UNMEASURED_LANES = 2  # the fewest that hide one frame's copies behind another's network
log = logging.getLogger(__name__)


def load_gpu_engine(
    backend: str,
    checkpoint: "Checkpoint",
    path: Path,
    colour: Colour,
    spec: EngineSpec,
    *,
    lanes: int,
    int8_where_faster: bool,
    on_progress: Callable[[str], None],
) -> GpuEngine:
    """Loads an engine whose output was compared with the reference's. `lanes` = 0: as many as were measured
    to be best when it was built; two where that was on another GPU or, by PyTorch, never. The rest, and what
    is raised, as for `open_engine`; also ParityError."""
    engine = open_engine(
        backend, checkpoint, path, colour, spec, int8_where_faster=int8_where_faster, on_progress=on_progress
    )
    performance = engine.spec.performance
    if performance is None:
        # Imported inside: torch.
        from engine.backends.cuda.measure import measure_parity

        engine.spec = passed(engine.spec, measure_parity(engine, checkpoint, colour))
        best = on_surfaces = _UNMEASURED_LANES
    else:
        engine.spec = passed(engine.spec, performance.parity_db)
        best, on_surfaces = performance.host.best, performance.surface.best
    engine.spec = replace(engine.spec, lanes=lanes or best, surface_lanes=lanes or on_surfaces)
    return engine


def open_engine(
    backend: str,
    checkpoint: "Checkpoint",
    path: Path,
    colour: Colour,
    spec: EngineSpec,
    *,
    int8_where_faster: bool = False,
    on_progress: Callable[[str], None],
) -> "CudaEngine | TensorRtEngine":
    """An engine whose parity nobody has judged; a built one's spec has what was measured of it. `path` is the
    checkpoint's. Building a TensorRT engine for the first time takes minutes; `on_progress` hears in words
    how far it is. `int8_where_faster`: one that was built in INT8 in place of FP16's. Raises EngineError,
    DeviceFailed."""
    require_gpu(backend)
    # Only now is it known that torch is there, and TensorRT.
    if backend == "cuda":
        from engine.backends.cuda.engine import CudaEngine

        return CudaEngine(checkpoint, colour, spec)
    from engine.backends.tensorrt.engine import TensorRtEngine

    request, folder = _build_request(checkpoint, path, colour, spec), artifacts_folder()

    def load(artifact: TensorRtArtifact) -> TensorRtEngine:
        measured_here = artifact.manifest["gpu"] == request.target.gpu
        performance = artifact.performance(spec.width, spec.height) if measured_here else None
        precision = artifact.manifest["request"]["precision"]
        loaded = replace(spec, precision=precision, performance=performance)
        return TensorRtEngine(artifact.path.read_bytes(), loaded, name=str(artifact.path))

    if int8_where_faster and (int8 := faster_int8(request, folder)) is not None:
        try:
            return load(int8)
        except PlanRefused as exc:
            log.warning("%s is not used, FP16 runs: %s", int8.path, exc)
    return load_artifact(
        request,
        folder,
        load,
        timeout_s=BUILD_TIMEOUT_S,
        on_progress=_stages(on_progress),
    )


def _build_request(checkpoint: "Checkpoint", path: Path, colour: Colour, spec: EngineSpec) -> BuildRequest:
    # torch, as above.
    from engine.backends.tensorrt.target import current_target

    return BuildRequest(
        checkpoint=path,
        checkpoint_sha256=checkpoint.sha256,
        kind=checkpoint.config.colour,
        colour=colour,
        sizes=(sizes := Sizes.only(spec.width, spec.height)),
        batches=sizes.batches,
        precision=spec.precision or "fp16",
        target=current_target(),
    )


def _stages(on_progress: Callable[[str], None]) -> Callable[[str, float], None]:
    """Hears of a build each second, and passes on what changes; so does the log."""
    last = ""

    def hear(stage: str, elapsed_s: float) -> None:
        nonlocal last
        if stage != last:
            log.info("TensorRT engine after %.0f s: %s", elapsed_s, stage)
            on_progress(stage)
        last = stage

    return hear
