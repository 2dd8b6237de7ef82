"""The page about the models that ship: every figure from their files, or measured by `livesr models`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from engine.config import AwsrnConfig
from engine.frame import Precision
from training.report.render import Table, giga, kilo


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Means over a set's images: PSNR-Y in dB and SSIM-Y."""

    images: int
    psnr_db: float
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a model has scored, by precision and set, and the hash of the checkpoint that has."""

    checkpoint_sha256: str
    sets: Mapping[Precision, Mapping[str, Quality]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        sets = {
            precision: {name: Quality(**figures) for name, figures in of_sets.items()}
            for precision, of_sets in fields["sets"].items()
        }
        return cls(checkpoint_sha256=fields["checkpoint_sha256"], sets=sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One that ships. `parity_db`: of its INT8 artifact, None where there is none."""

    name: str
    config: AwsrnConfig
    provenance: Mapping[str, Any] = field(repr=False)
    parity_db: float | None
    measured: Measured | None


def page(models: Sequence[Model], bicubic: Mapping[int, Mapping[str, Quality]]) -> str:
    """Markdown. `bicubic`: what MATLAB's scores at each scale."""
    sets = sorted({name for of_sets in bicubic.values() for name in of_sets}, key=_set_order)
    parts = [
        "# Models that ship\n",
        "Written by `livesr models`: sizes and training from the metadata of each checkpoint, quality as"
        " measured of it on clean LR. What each is for, and how it came about, is in"
        " [engine/zoo/README.md](../engine/zoo/README.md); compressed clips are in"
        " [video-quality.md](video-quality.md).\n",
        _sizes(models).markdown(),
        "## Quality\n",
        "PSNR-Y in dB and SSIM-Y by the papers' protocol, as"
        " `livesr evaluate --model NAME [--precision float32] --set Set5=DIR …` prints them.\n",
        _quality(models, bicubic, sets).markdown(),
        "## Training\n",
        "Each model's runs, the first one first; a later one begins with the weights of the one before."
        " Minutes are of the machine that it was trained on, beside other work.\n",
    ]
    for model in models:
        parts += [f"### {model.name}\n", _training(model).markdown()]
    return "\n".join(parts)


def _set_order(name: str) -> tuple[int, str]:
    return len(name), name  # Set5 before Set14


def _sizes(models: Sequence[Model]) -> Table:
    rows = []
    for model in models:
        config = model.config
        colour = "luma" if config.colour == "y" else "RGB"
        shape = f"{config.lfbs} LFB × {config.awrus} AWRUs, n{config.features} b{config.block_features}"
        awms = f"AWMS {'+'.join(map(str, config.kernels))}"
        rows.append(
            (
                f"`{model.name}`",
                f"{colour}, {shape}, {awms}",
                f"×{config.scale}",
                kilo(config.parameters),
                giga(config.mult_adds),
                kilo(config.folded_macs_per_lr_pixel),
                "–" if model.parity_db is None else f"{model.parity_db:.1f}",
            )
        )
    header = ("model", "network", "scale", "params", "Mult-Adds", "folded MAC / LR pixel", "INT8 parity, dB")
    return Table(header=header, rows=rows, names=2)


def _quality(
    models: Sequence[Model], bicubic: Mapping[int, Mapping[str, Quality]], sets: Sequence[str]
) -> Table:
    rows = []
    for scale in sorted({model.config.scale for model in models}):
        rows.append((f"bicubic ×{scale}", "–", *(_score(bicubic.get(scale, {}).get(name)) for name in sets)))
        for model in models:
            if model.config.scale == scale and model.measured is not None:
                for precision, of_sets in sorted(model.measured.sets.items()):
                    rows.append((f"`{model.name}`", precision, *(_score(of_sets.get(name)) for name in sets)))
    images = {name: quality.images for of_sets in bicubic.values() for name, quality in of_sets.items()}
    return Table(
        header=("model", "precision", *(f"{name} ({images[name]})" for name in sets)), rows=rows, names=2
    )


def _score(quality: Quality | None) -> str:
    return "–" if quality is None else f"{quality.psnr_db:.2f} / {quality.ssim:.4f}"


def _training(model: Model) -> Table:
    rows = []
    for run in reversed(list(_runs(model.provenance))):
        recipe = run["recipe"]
        losses = [recipe.get("loss", "L1")]
        losses += [f"{name} {recipe[name]:g}" for name in ("detail", "lanczos") if recipe.get(name)]
        whole, done = recipe["iterations"], run["iteration"]
        minutes = run.get("minutes")
        rows.append(
            (
                ", ".join(losses),
                f"{done:,}" if done == whole else f"{done:,} of {whole:,}",
                str(recipe["batch"]),
                f"{recipe['learning_rate']:g}",
                str(recipe["collapsible"]) if recipe.get("collapsible") else "–",
                run["data_sha256"][:8],
                "–" if minutes is None else f"{minutes:.0f}",
            )
        )
    header = ("loss", "iterations", "batch", "first rate", "collapsible", "data", "minutes")
    return Table(header=header, rows=rows, names=1)


def _runs(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The last run first. What was pruned or converted has runs without a recipe between them."""
    run: Mapping[str, Any] | None = provenance
    while run is not None:
        if "recipe" in run:
            yield run
        run = run.get("began_with")
