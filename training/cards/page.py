"""The page about all models that ship, to choose one by."""

from collections.abc import Sequence

from training.cards.card import gained, network_line
from training.cards.gain import gains, pairs
from training.cards.model import Model
from training.paper.comparison import Row
from training.report.render import Table, giga, kilo


def page(models: Sequence[Model]) -> str:
    """Markdown. The order of `models` is kept within a scale."""
    parts = [
        "# Models that ship\n",
        "Written by `livesr models`, as is each model's card in [engine/zoo](../engine/zoo/README.md):"
        " sizes from the checkpoints, quality as `livesr evaluate` measured it. What viewers get for a"
        " bitrate is in [video-quality.md](video-quality.md).\n",
        _purposes(models).markdown(),
        "## Size\n",
        _sizes(models).markdown(),
        "## Clean sources\n",
        "PSNR-Y in dB and SSIM-Y on clean LR by the papers' protocol, as"
        " `livesr evaluate --model NAME [--precision float32] --set Set5=DIR …` prints them.\n",
        _clean(models).markdown(),
        "## Compressed sources\n",
        "What INT8 has over Lanczos, on average over clips and CRFs and, in brackets, at worst; of flicker"
        " less is better. The figures of each clip, and the command that measured them, are in the cards.\n",
        _compressed(models).markdown(),
    ]
    return "\n".join(parts)


def _purposes(models: Sequence[Model]) -> Table:
    rows = [(f"[{model.name}](../engine/zoo/{model.name}/README.md)", model.purpose) for model in models]
    return Table(header=("model", "for"), rows=rows, names=2)


def _sizes(models: Sequence[Model]) -> Table:
    rows = []
    for model in models:
        config, parity_db = model.config, model.artifact.parity_db
        rows.append(
            (
                f"`{model.name}`",
                network_line(model),
                f"×{config.scale}",
                kilo(config.parameters),
                giga(config.mult_adds),
                kilo(config.folded_macs_per_lr_pixel),
                "–" if parity_db is None else f"{parity_db:.1f}",
            )
        )
    header = ("model", "network", "scale", "params", "Mult-Adds", "folded MAC / LR pixel", "INT8 parity, dB")
    return Table(header=header, rows=rows, names=2)


def _clean(models: Sequence[Model]) -> Table:
    measured = [(model, model.evaluation) for model in models if model.evaluation]
    images = {
        name: score.images for _, evaluation in measured for name, score in evaluation.int8.scores.items()
    }
    sets = sorted(images, key=lambda name: (len(name), name))  # Set5 before Set14
    rows: list[tuple[str, ...]] = []
    for scale in sorted({model.config.scale for model, _ in measured}):
        of_scale = [(model, evaluation) for model, evaluation in measured if model.config.scale == scale]
        rows.append((f"bicubic ×{scale}", "–", *_scores(of_scale[0][1].bicubic, sets)))
        for model, evaluation in of_scale:
            rows.append((f"`{model.name}`", "float32", *_scores(evaluation.float32, sets)))
            rows.append((f"`{model.name}`", "int8", *_scores(evaluation.int8, sets)))
    header = ("model", "precision", *(f"{name} ({images[name]})" for name in sets))
    return Table(header=header, rows=rows, names=2)


def _scores(row: Row, sets: Sequence[str]) -> list[str]:
    scores = [row.scores.get(name) for name in sets]
    return ["–" if score is None else f"{score.psnr_db:.2f} / {score.ssim:.4f}" for score in scores]


def _compressed(models: Sequence[Model]) -> Table:
    rows = []
    for model in models:
        if model.evaluation is None or not model.evaluation.material.videos:
            continue
        material, found = model.evaluation.material, gains(pairs(model.evaluation))
        rows.append(
            (
                f"`{model.name}`",
                f"×{model.config.scale}",
                str(len(material.videos)),
                ", ".join(map(str, material.crfs)) or "–",
                gained(found.psnr_db, 2),
                gained(found.vmaf, 2),
                gained(found.vmaf_neg, 2),
                gained(found.flicker, 3),
            )
        )
    header = ("model", "scale", "clips", "CRF", "PSNR-Y, dB", "VMAF", "VMAF-NEG", "flicker")
    return Table(header=header, rows=rows, names=1)
