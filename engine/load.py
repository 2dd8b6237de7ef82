"""From a model's name to something that runs, on the best backend of this machine."""

import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from engine.artifact import Artifact, open_artifact
from engine.config import AwsrnConfig
from engine.errors import BackendUnavailable, ModelNotFound
from engine.frame import Colour, Engine, EngineSpec, Precision
from engine.machine import cpu
from engine.net import Net

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

ZOO = Path(__file__).parent / "zoo"
BACKENDS = ("openvino", "reference")
MIN_SIDE, MAX_SIDE = 16, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a name stands for: a compiled artifact, or a checkpoint that is compiled when it is loaded."""

    name: str
    source: "Artifact | Checkpoint"

    @property
    def config(self) -> AwsrnConfig:
        return self.source.manifest.config if isinstance(self.source, Artifact) else self.source.config


def zoo() -> list[str]:
    """The models that ship."""
    return sorted({path.name.split(".")[0] for path in ZOO.iterdir() if _is_model(path)})


def load_engine(
    model: str | Path,
    *,
    width: int,
    height: int,
    colour: Colour | None = None,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
) -> Engine:
    """An engine for LR frames of width × height. `model`: a zoo name, an artifact folder or a .safetensors
    checkpoint. Raises EngineError, ValueError where the size does not fit."""
    for name, side in (("width", width), ("height", height)):
        if side % 2 or not MIN_SIDE <= side <= MAX_SIDE:
            raise ValueError(f"{name}={side} must be even and {MIN_SIDE} to {MAX_SIDE}")
    chosen, backend, precision = choose(model, backend, precision)
    colour = colour or Colour()
    source = chosen.source
    spec = EngineSpec(
        model=chosen.name,
        backend=backend,
        precision=precision,
        colour=chosen.config.colour,
        scale=chosen.config.scale,
        width=width,
        height=height,
        macs_per_frame=chosen.config.folded_macs_per_lr_pixel * width * height,
        parity_db=source.manifest.parity_db if isinstance(source, Artifact) else None,
        checkpoint_sha256=source.manifest.checkpoint_sha256
        if isinstance(source, Artifact)
        else source.sha256,
    )
    match backend:
        case "openvino":
            from engine.backends.openvino import OpenVinoEngine

            with tempfile.TemporaryDirectory(prefix="livesr-") as folder:
                artifact = _artifact(source, precision, Path(folder))
                return OpenVinoEngine(artifact, colour, spec, threads=threads)
        case _:
            from engine.backends.reference import ReferenceEngine

            assert not isinstance(source, Artifact)
            return ReferenceEngine(source, colour, spec)


def load_net(
    model: str | Path, *, backend: str | None = None, precision: Precision | None = None, threads: int = 0
) -> Net:
    """The bare network, for images of any size. `model` and errors as for `load_engine`."""
    chosen, backend, precision = choose(model, backend, precision)
    match backend:
        case "openvino":
            from engine.backends.openvino import OpenVinoNet

            with tempfile.TemporaryDirectory(prefix="livesr-") as folder:
                artifact = _artifact(chosen.source, precision, Path(folder))
                return OpenVinoNet(artifact, precision, threads=threads)
        case _:
            from engine.backends.reference import ReferenceNet

            assert not isinstance(chosen.source, Artifact)
            return ReferenceNet(chosen.source.network())


def choose(
    model: str | Path, backend: str | None, precision: Precision | None
) -> tuple[Model, str, Precision]:
    """What will run: an artifact of the wanted precision where there is one, INT8 first; else the checkpoint,
    in BF16 where the CPU multiplies in it. The reference backend always takes the checkpoint."""
    if backend not in (None, *BACKENDS):
        raise BackendUnavailable(f"backend={backend!r} must be one of {', '.join(BACKENDS)}")
    if precision not in (None, *get_args(Precision)):
        raise ValueError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}")
    if backend == "reference":
        if precision not in (None, "float32"):
            raise BackendUnavailable(f"backend='reference' runs in float32, not in {precision}")
        return _checkpoint(model), "reference", "float32"
    path = Path(model)
    if path.is_dir():
        artifact = open_artifact(path)
        built = artifact.manifest.precision
        if precision not in (None, built):
            raise BackendUnavailable(f"{path} was built in {built}, not in {precision}")
        return Model(name=path.name, source=artifact), "openvino", built
    if not path.suffix:
        wanted: tuple[Precision, ...] = (precision,) if precision else ("int8", "bf16", "float32")
        for built in wanted:
            folder = ZOO / f"{model}.{built}"
            if folder.is_dir():
                return Model(name=str(model), source=open_artifact(folder)), "openvino", built
    return _checkpoint(model), "openvino", precision or ("bf16" if cpu().fast_bf16 else "float32")


def _checkpoint(model: str | Path) -> Model:
    path = Path(model)
    if not path.suffix and not path.exists():
        path = ZOO / f"{model}.safetensors"
        if not path.is_file():
            raise ModelNotFound(f"model {str(model)!r} is neither a path nor one of {', '.join(zoo())}")
    elif path.is_dir():
        raise BackendUnavailable(f"backend='reference' needs a checkpoint; {path} is a compiled artifact")
    try:
        checkpoint = importlib.import_module("engine.checkpoint")
    except ModuleNotFoundError as exc:
        raise BackendUnavailable(
            f"{path} is a checkpoint, which needs {exc.name}: pip install 'livesr[train]', or use an artifact"
        ) from exc
    return Model(name=path.stem, source=checkpoint.load_checkpoint(path))


def _artifact(source: "Artifact | Checkpoint", precision: Precision, folder: Path) -> Artifact:
    if isinstance(source, Artifact):
        return source
    from engine.compile import compile_checkpoint
    from engine.sample_frames import DEFAULT, sample_frames

    frames = sample_frames(DEFAULT) if precision == "int8" else []
    return compile_checkpoint(source, precision, folder, [f.net_input(source.config.colour) for f in frames])


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / "manifest.json").is_file()
