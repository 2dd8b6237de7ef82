"""Engines on an NVIDIA GPU, and how they are loaded.

Modules that import torch are imported inside: `engine.load` imports this one in processes that have no GPU.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends.cuda.choose_lanes import choose_lanes
from engine.backends.gate import measure, passed
from engine.backends.require_gpu import require_gpu
from engine.backends.tensorrt.builds import ensure_artifact
from engine.backends.tensorrt.request import BuildRequest, Sizes
from engine.backends.tensorrt.store import (
    TensorRtArtifact,
    artifacts_folder,
    find_fitting_artifact,
    set_parity,
)
from engine.frame import Colour, Engine, EngineSpec, GpuEngine

if TYPE_CHECKING:
    from engine.backends.cuda.engine import CudaEngine
    from engine.backends.tensorrt.engine import TensorRtEngine
    from engine.network.checkpoint import Checkpoint

# A large network for a large frame takes minutes; one that takes this long hangs.
BUILD_TIMEOUT_S = 1800.0
log = logging.getLogger(__name__)


def load_gpu_engine(
    backend: str,
    checkpoint: "Checkpoint",
    path: Path,
    colour: Colour,
    spec: EngineSpec,
    *,
    lanes: int,
    on_progress: Callable[[str], None],
) -> GpuEngine:
    """Loads an engine and checks its output against the reference. `lanes` = 0: as many as are measured to be
    best. The rest, and what is raised, as for `open_engine`; also ParityError."""
    engine, artifact = open_engine(backend, checkpoint, path, colour, spec, on_progress=on_progress)
    parity: float | None = None if artifact is None else artifact.manifest["parity_db"]
    if parity is None:
        parity = measure_parity(engine, checkpoint, colour)
        if artifact is not None:
            set_parity(artifact, parity)
    engine.spec = passed(spec, parity)
    engine.spec = replace(engine.spec, lanes=lanes or choose_lanes(engine))
    return engine


def open_engine(
    backend: str,
    checkpoint: "Checkpoint",
    path: Path,
    colour: Colour,
    spec: EngineSpec,
    *,
    on_progress: Callable[[str], None],
) -> "tuple[CudaEngine | TensorRtEngine, TensorRtArtifact | None]":
    """An engine that nobody has compared with the reference, and what it was deserialised from. `path` is the
    checkpoint's. Building a TensorRT engine for the first time takes minutes; `on_progress` hears in words
    how far it is. Raises EngineError, DeviceFailed."""
    require_gpu(backend)
    if backend == "cuda":
        from engine.backends.cuda.engine import CudaEngine

        return CudaEngine(checkpoint, colour, spec), None
    from engine.backends.tensorrt.engine import TensorRtEngine

    request, folder = _build_request(checkpoint, path, colour, spec), artifacts_folder()
    artifact = find_fitting_artifact(request, folder)
    if artifact is None:
        artifact = ensure_artifact(
            request, folder, timeout_s=BUILD_TIMEOUT_S, on_progress=_stages(on_progress)
        )
    return TensorRtEngine(artifact, spec), artifact


def measure_parity(engine: GpuEngine, checkpoint: "Checkpoint", colour: Colour) -> float:
    """PSNR in dB against the float32 reference on the same GPU. Raises DeviceFailed."""

    def reference(width: int, height: int) -> Engine:
        spec = replace(engine.spec, width=width, height=height)
        return ReferenceEngine(checkpoint, colour, spec, "cuda")

    import torch

    from engine.backends.cuda.device import device_errors
    from engine.backends.reference import ReferenceEngine

    with device_errors("while parity was measured"):
        parity = measure(engine, reference, checkpoint.config.reach)
        torch.cuda.empty_cache()  # float32 needs several times what the engine does
    return parity


def _build_request(checkpoint: "Checkpoint", path: Path, colour: Colour, spec: EngineSpec) -> BuildRequest:
    from engine.backends.tensorrt.target import current_target

    return BuildRequest(
        checkpoint=path,
        checkpoint_sha256=checkpoint.sha256,
        kind=checkpoint.config.colour,
        colour=colour,
        sizes=Sizes.only(spec.width, spec.height),
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
