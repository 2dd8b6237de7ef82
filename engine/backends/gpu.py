"""Engines on an NVIDIA GPU: what they need of the machine, and how they are loaded; torch only then."""

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends.cuda.choose_lanes import choose_lanes
from engine.errors import BackendUnavailable
from engine.frame import Colour, EngineSpec, GpuEngine
from engine.machine import nvidia_gpus

if TYPE_CHECKING:
    from engine.backends.cuda.engine import CudaEngine
    from engine.backends.tensorrt.engine import TensorRtEngine
    from engine.backends.tensorrt.request import PlanRequest
    from engine.backends.tensorrt.store import Plan
    from engine.network.checkpoint import Checkpoint

GPU_BACKENDS = ("tensorrt", "cuda")  # the faster first
# A large network for a large frame takes minutes; one that takes this long hangs.
BUILD_TIMEOUT_S = 1800.0
log = logging.getLogger(__name__)


def require_gpu(backend: str) -> None:
    """Raises BackendUnavailable with what is missing first. Cheap where there is no GPU."""
    if not nvidia_gpus():
        raise BackendUnavailable(f"backend={backend!r} needs an NVIDIA GPU, and nvidia-smi shows none here")
    needed = ["torch", "safetensors"] + (["tensorrt"] if backend == "tensorrt" else [])
    for package in needed:
        if find_spec(package) is None:
            hint = "pip install 'livesr[gpu]'"
            raise BackendUnavailable(f"backend={backend!r} needs {package}, which is not installed: {hint}")
    from engine.backends.cuda.device import require_cuda

    require_cuda(backend)
    if backend == "tensorrt":
        from engine.backends.tensorrt.engine import load_tensorrt

        load_tensorrt()


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
    """Behind the parity gate. `lanes` = 0: as many as are measured to be best. The rest, and what is raised,
    as for `open_engine`; also ParityError."""
    from engine.backends.gate import passed
    from engine.backends.tensorrt.plans import set_parity

    engine, plan = open_engine(backend, checkpoint, path, colour, spec, on_progress=on_progress)
    parity: float | None = None if plan is None else plan.manifest["parity_db"]
    if parity is None:
        parity = measure_parity(engine, checkpoint, colour)
        if plan is not None:
            set_parity(plan, parity)
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
) -> "tuple[CudaEngine | TensorRtEngine, Plan | None]":
    """An engine that nobody has compared with the reference, and what it was deserialised from. `path` is the
    checkpoint's. Building a TensorRT engine for the first time takes minutes; `on_progress` hears in words
    how far it is. Raises EngineError, DeviceFailed."""
    require_gpu(backend)
    if backend == "cuda":
        from engine.backends.cuda.engine import CudaEngine

        return CudaEngine(checkpoint, colour, spec), None
    from engine.backends.tensorrt.engine import TensorRtEngine
    from engine.backends.tensorrt.plans import ensure_plan, find_fitting_plan, plans_folder

    request, folder = _plan_request(checkpoint, path, colour, spec), plans_folder()
    plan = find_fitting_plan(request, folder)
    if plan is None:
        plan = ensure_plan(request, folder, timeout_s=BUILD_TIMEOUT_S, on_progress=_stages(on_progress))
    return TensorRtEngine(plan, spec), plan


def measure_parity(engine: GpuEngine, checkpoint: "Checkpoint", colour: Colour) -> float:
    """PSNR in dB against the float32 reference on the same GPU. Raises DeviceFailed."""
    import torch

    from engine.backends.cuda.device import device_errors
    from engine.backends.gate import measure
    from engine.backends.reference import ReferenceEngine

    with device_errors("while parity was measured"):
        parity = measure(engine, ReferenceEngine(checkpoint, colour, engine.spec, "cuda"))
        torch.cuda.empty_cache()  # float32 needs several times what the engine does
    return parity


def _plan_request(checkpoint: "Checkpoint", path: Path, colour: Colour, spec: EngineSpec) -> "PlanRequest":
    from engine.backends.tensorrt.request import PlanRequest, Sizes
    from engine.backends.tensorrt.target import current_target

    return PlanRequest(
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
