"""The paper's networks as they were trained here: what a checkpoint says of its runs, and what it scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from engine.config import AwsrnConfig, paper_config
from engine.load import choose
from engine.network.checkpoint import load_checkpoint
from training.judge.contenders import open_contender
from training.judge.evaluate import Result, evaluate_set
from training.judge.sets import SetFolder
from training.networks import config_from_dict, load_network
from training.paper.ablate import removals
from training.validate import runs_of

VARIANTS = ("awsrn-s", "awsrn-sd", "awsrn-m", "awsrn")
PAPERS_SET = "Set5"  # of table 4, and of the curves beside table 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training: what was asked for, how much of it was done, and in how many minutes. `variant` is None
    for a network that is none of the paper's."""

    variant: str | None
    scale: int
    iterations: int
    done: int
    batch: int
    lr_patch: int
    learning_rate: float
    bf16: bool
    minutes: float | None

    @property
    def patches(self) -> int:
        return self.done * self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch of the AWMS: its learned α, and PSNR-Y in dB on Set5 of the network without it."""

    kernel: int
    alpha: float
    parameters: int
    without_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """One network. `runs`: the last one first, each begun with the weights of the next. `curve`: PSNR-Y in dB
    on `curve_set` after so many iterations of the last run, empty where that was not kept. `sets`: scores in
    float32; `whole_db`: PSNR-Y on Set5, which those of `branches` compare with."""

    variant: str
    scale: int
    checkpoint_sha256: str
    parameters: int
    mult_adds: float
    runs: Sequence[Run]
    curve_set: str
    curve: Sequence[tuple[int, float]]
    sets: Mapping[str, Result]
    whole_db: float
    branches: Sequence[Branch]

    @property
    def label(self) -> str:
        return f"{self.variant.upper()} ×{self.scale}"

    @property
    def name(self) -> str:
        return f"{self.variant}-x{self.scale}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(
            **fields
            | {
                "runs": tuple(Run(**run) for run in fields["runs"]),
                "curve": tuple((int(iteration), float(psnr_db)) for iteration, psnr_db in fields["curve"]),
                "sets": {name: Result(**result) for name, result in fields["sets"].items()},
                "branches": tuple(Branch(**branch) for branch in fields["branches"]),
            }
        )


def variant_of(config: AwsrnConfig) -> str | None:
    """The paper's name of a network, None where it is none of the paper's."""
    return next((name for name in VARIANTS if paper_config(name, config.scale) == config), None)


def checkpoint_of(model: str) -> Path:
    """File of a model that ships, or the file itself. Raises EngineError."""
    return choose(model, "reference", None).path


def reproduce(model: str, sets: Sequence[SetFolder]) -> Reproduced:
    """Judges a trained network on the sets, Set5 among them, whole and without each branch of its AWMS.

    `model`: a name in the zoo, or a checkpoint. Raises EngineError, and ValueError where it is none of the
    paper's networks, or not from `livesr train`.
    """
    path = checkpoint_of(model)
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    variant = variant_of(config)
    if variant is None:
        raise ValueError(f"{model} has {config}, must be one of {', '.join(VARIANTS)}")
    runs = tuple(_run(made) for made in runs_of(checkpoint.provenance))
    if not runs:
        raise ValueError(f"{model} must be from `livesr train`: its checkpoint names no recipe")
    set5 = next((folder for folder in sets if folder.name == PAPERS_SET), None)
    if set5 is None:
        raise ValueError(f"--set {PAPERS_SET}=DIR must be given: table 4 is of {PAPERS_SET}")
    whole, *cut = removals(load_network(path), {PAPERS_SET: set5.hr})
    branches = [
        Branch(kernel=kernel, alpha=row.alpha, parameters=row.parameters_added, without_db=row.psnr_db)
        for kernel, row in zip(config.kernels, cut, strict=True)
        if row.alpha is not None
    ]
    seen = checkpoint.provenance.get("validation", {"set": "", "psnr_db": []})
    contender = open_contender(str(path), None, "openvino", "float32")
    return Reproduced(
        variant=variant,
        scale=config.scale,
        checkpoint_sha256=checkpoint.sha256,
        parameters=whole.parameters,
        mult_adds=whole.mult_adds,
        runs=runs,
        curve_set=seen["set"],
        curve=tuple((iteration, psnr_db) for iteration, psnr_db in seen["psnr_db"]),
        sets={folder.name: evaluate_set(contender.upscale, config.scale, folder) for folder in sets},
        whole_db=whole.psnr_db,
        branches=branches,
    )


def _run(made: Mapping[str, Any]) -> Run:
    recipe = made["recipe"]
    config = config_from_dict(recipe["config"])
    return Run(
        variant=variant_of(config) if isinstance(config, AwsrnConfig) else None,
        scale=config.scale,
        iterations=recipe["iterations"],
        done=made["iteration"],
        batch=recipe["batch"],
        lr_patch=recipe["lr_patch"],
        learning_rate=recipe["learning_rate"],
        bf16=recipe.get("bf16", False),
        minutes=made.get("minutes"),
    )
