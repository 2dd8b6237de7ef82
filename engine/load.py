"""From a model's name to something that runs, on the best backend of this machine.

Backends are imported inside, each where it is used: the gateway asks only for names and needs neither
OpenVINO nor torch, and a service that runs artifacts needs no torch.
"""

import importlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from engine.artifact import Artifact, open_artifact
from engine.backends.require_gpu import GPU_BACKENDS, require_gpu
from engine.config import AwsrnConfig
from engine.errors import BackendUnavailable, EngineError, ModelNotFound
from engine.frame import Colour, Engine, EngineSpec, Precision, network_spec
from engine.machine import cpu, nvidia_gpus
from engine.net import Net
from engine.shipped import find_checkpoint, is_name, model_name, shipped_artifact, zoo

if TYPE_CHECKING:
    from engine.network.checkpoint import Checkpoint

BACKENDS = (*GPU_BACKENDS, "openvino", "reference")
# Frames in flight on a CPU: one is filled or emptied while two are computed.
CPU_LANES = 3
MIN_SIDE, MAX_SIDE = 16, 4096
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a model's name stands for on this machine: a compiled artifact, or a checkpoint that is compiled
    when it is loaded; and how it will run."""

    name: str
    source: "Artifact | Checkpoint"
    path: Path
    backend: str
    precision: Precision
    why: str

    @property
    def config(self) -> AwsrnConfig:
        return self.source.manifest.config if isinstance(self.source, Artifact) else self.source.config

    def spec(self, width: int, height: int) -> EngineSpec:
        if isinstance(self.source, Artifact):
            parity, sha256 = self.source.manifest.parity_db, self.source.manifest.checkpoint_sha256
        else:
            parity, sha256 = None, self.source.sha256
        return network_spec(
            self.config,
            model=self.name,
            backend=self.backend,
            precision=self.precision,
            checkpoint_sha256=sha256,
            width=width,
            height=height,
            parity_db=parity,
        )


def smaller_models(model: str | Path, backend: str | None) -> list[str]:
    """Models that ship, of the same scale and trained for the same sources, with fewer multiply-adds; the
    largest first. None where `model` would run on a GPU: each would have to be built there.
    Raises EngineError."""
    choice = choose(model, backend, None)
    if choice.backend in GPU_BACKENDS:
        return []
    suffix = f"-x{choice.config.scale}"
    trained_for = choice.name.partition(suffix)[2]
    alike = [n for n in zoo() if suffix in n and n.partition(suffix)[2] == trained_for]
    macs = {name: _macs(choose(name, backend, None)) for name in alike}
    return sorted((n for n in macs if macs[n] < _macs(choice)), key=macs.__getitem__, reverse=True)


def _macs(choice: Choice) -> float:
    return choice.config.folded_macs_per_lr_pixel


def load_engine(
    model: str | Path,
    *,
    width: int,
    height: int,
    colour: Colour | None = None,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    lanes: int = 1,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Engine:
    """An engine for LR frames of width × height. `model`: a zoo name, an artifact folder or a .safetensors
    checkpoint. `lanes` is how many the caller will drive: an engine may share its threads among them; with 0
    the engine says how many (`spec.lanes`): 3 on a CPU, on a GPU the number that was measured to be best when
    it was built. A TensorRT engine is built the first time, for minutes; `on_progress` hears in words how far
    it is; where it was built in INT8, too, and that is faster, that one runs.
    Raises EngineError, DeviceFailed, ValueError where the size does not fit."""
    for name, side in (("width", width), ("height", height)):
        if side % 2 or not MIN_SIDE <= side <= MAX_SIDE:
            raise ValueError(f"{name}={side} must be even and {MIN_SIDE} to {MAX_SIDE}")
    choice = choose(model, backend, precision)
    if backend is None and choice.backend not in GPU_BACKENDS and nvidia_gpus():
        log.warning("model %s runs on %s: %s", choice.name, choice.backend, choice.why)
    colour, spec = colour or Colour(), choice.spec(width, height)
    if choice.backend not in GPU_BACKENDS:
        spec = replace(spec, lanes=lanes or CPU_LANES)
    match choice.backend:
        # Of PyTorch, OpenVINO, TensorRT and PyAV, in which a GPU's engine is compared with the reference on
        # real frames, only what this one needs is loaded: each takes up to a second.
        case "tensorrt" | "cuda":
            from engine.backends.gpu import load_gpu_engine

            assert not isinstance(choice.source, Artifact)
            return load_gpu_engine(
                choice.backend,
                choice.source,
                choice.path,
                colour,
                spec,
                lanes=lanes,
                int8_where_faster=precision is None,
                on_progress=on_progress,
            )
        case "openvino":
            from engine.backends.openvino.engine import OpenVinoEngine

            with artifact_of(choice) as artifact:
                return OpenVinoEngine(artifact, colour, spec, threads=threads, lanes=spec.lanes)
        case _:
            from engine.backends.reference import ReferenceEngine

            assert not isinstance(choice.source, Artifact)
            return ReferenceEngine(choice.source, colour, spec)


def load_net(
    model: str | Path, *, backend: str | None = None, precision: Precision | None = None, threads: int = 0
) -> Net:
    """The bare network, for images of any size. `model` and errors as for `load_engine`."""
    choice = choose_net(model, backend, precision)
    match choice.backend:  # as above
        case "openvino":
            from engine.backends.openvino.engine import OpenVinoNet

            with artifact_of(choice) as artifact:
                return OpenVinoNet(artifact, choice.precision, threads=threads)
        case _:
            from engine.backends.reference import ReferenceNet

            assert not isinstance(choice.source, Artifact)
            return ReferenceNet(choice.source.network())


def choose(model: str | Path, backend: str | None, precision: Precision | None) -> Choice:
    """FP16 of the checkpoint on a GPU that can be used, else as `choose_cpu`. Why one that is there is not
    used, the choice says."""
    if backend not in (None, *BACKENDS):
        raise BackendUnavailable(f"backend={backend!r} must be one of {', '.join(BACKENDS)}")
    if precision not in (None, *get_args(Precision)):
        raise ValueError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}")
    if backend in GPU_BACKENDS:
        return _choose_gpu(model, backend, precision, "asked for")
    compiled = _is_folder(Path(model))
    if backend is not None or compiled or precision not in (None, "fp16"):
        return choose_cpu(model, backend, precision)
    if precision is None and not nvidia_gpus():
        return choose_cpu(model, None, None)
    reason: EngineError | None = None
    for gpu_backend in GPU_BACKENDS:
        try:
            why = f"there is an NVIDIA GPU; {reason}" if reason else "there is an NVIDIA GPU"
            return _choose_gpu(model, gpu_backend, precision, why)
        except (BackendUnavailable, ModelNotFound) as exc:
            reason = exc
    assert reason is not None
    if precision is not None:
        raise reason
    choice = choose_cpu(model, None, None)
    return replace(choice, why=f"{choice.why}; the NVIDIA GPU is not used: {reason}")


def _choose_gpu(model: str | Path, backend: str, precision: Precision | None, why: str) -> Choice:
    runs: tuple[Precision, ...] = ("fp16", "int8") if backend == "tensorrt" else ("fp16",)
    if precision not in (None, *runs):
        raise BackendUnavailable(f"backend={backend!r} runs in {' or '.join(runs)}, not in {precision}")
    require_gpu(backend)
    return _from_checkpoint(model, backend, precision or "fp16", why)


def choose_cpu(model: str | Path, backend: str | None, precision: Precision | None) -> Choice:
    """An artifact of the wanted precision where there is one, INT8 first; else the checkpoint, in BF16 where
    the CPU multiplies in it. The reference backend always takes the checkpoint."""
    if backend == "reference":
        if precision not in (None, "float32"):
            raise BackendUnavailable(f"backend='reference' runs in float32, not in {precision}")
        return _from_checkpoint(model, backend, "float32", "asked for")
    path = Path(model)
    if _is_folder(path):
        return _from_artifact(model_name(path), path, precision, "an artifact has one precision")
    if is_name(path):
        wanted: tuple[Precision, ...] = (precision,) if precision else ("int8", "bf16", "float32")
        for built in wanted:
            folder = shipped_artifact(path.name, built)
            if folder.is_dir():
                vnni = "with" if cpu().fast_int8 else "without"
                why = f"it ships compiled so; the CPU is one {vnni} INT8 dot products"
                return _from_artifact(str(model), folder, precision, why)
    if precision:
        return _from_checkpoint(model, "openvino", precision, "asked for")
    if cpu().fast_bf16:
        return _from_checkpoint(model, "openvino", "bf16", "a checkpoint, and the CPU multiplies in BF16")
    return _from_checkpoint(model, "openvino", "float32", "a checkpoint, and the CPU has no BF16")


def choose_net(model: str | Path, backend: str | None, precision: Precision | None) -> Choice:
    """Chooses as `choose` does, but on a CPU, and a checkpoint runs in float32 unless told otherwise: an
    image is in no hurry, and who judges a network wants its own output."""
    if backend in GPU_BACKENDS:
        raise BackendUnavailable(f"backend={backend!r} is for video; an image takes openvino or reference")
    choice = choose(model, backend or "openvino", precision)
    if precision is None and not isinstance(choice.source, Artifact):
        return choose(model, backend or "openvino", "float32")
    return choice


def _from_artifact(name: str, path: Path, precision: Precision | None, why: str) -> Choice:
    artifact = open_artifact(path)
    built = artifact.manifest.precision
    if precision not in (None, built):
        raise BackendUnavailable(f"{path} was built in {built}, not in {precision}")
    return Choice(name=name, source=artifact, path=path, backend="openvino", precision=built, why=why)


def _from_checkpoint(model: str | Path, backend: str, precision: Precision, why: str) -> Choice:
    path = find_checkpoint(Path(model))
    if _is_folder(path):
        raise BackendUnavailable(f"backend={backend!r} needs a checkpoint; {path} is a compiled artifact")
    try:
        checkpoint = importlib.import_module("engine.network.checkpoint")
    except ModuleNotFoundError as exc:
        hint = "pip install 'livesr[train]', or use an artifact"
        raise BackendUnavailable(f"{path} is a checkpoint, which needs {exc.name}: {hint}") from exc
    source = checkpoint.load_checkpoint(path)
    return Choice(
        name=model_name(path), source=source, path=path, backend=backend, precision=precision, why=why
    )


@contextmanager
def artifact_of(choice: Choice) -> Iterator[Artifact]:
    """The artifact, or one made of the checkpoint for as long as it takes to load it."""
    if isinstance(choice.source, Artifact):
        yield choice.source
        return
    # torch and PyAV: an artifact needs neither.
    from engine.compile import compile_checkpoint
    from engine.sample_frames import DEFAULT, sample_frames

    frames = sample_frames(DEFAULT) if choice.precision == "int8" else []
    calibration = [frame.net_input(choice.config.colour) for frame in frames]
    with tempfile.TemporaryDirectory(prefix="livesr-") as folder:
        yield compile_checkpoint(choice.source, choice.precision, Path(folder), calibration)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not is_name(path)
