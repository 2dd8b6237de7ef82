"""A model's card: figures from its checkpoint, its artifact and its evaluation, words from its notes."""

from collections.abc import Iterator, Mapping

from training.cards.gain import Gain, gains, pairs
from training.cards.model import Model, TrainingData
from training.paper.comparison import image_table, video_table
from training.report.render import Table, giga, kilo

# As the Hugging Face Hub reads it.
_FRONT = """---
license: apache-2.0
pipeline_tag: image-to-image
tags: [super-resolution, video, awsrn, {colour}, x{scale}]
metrics: [psnr, ssim, vmaf]
---
"""


def card(model: Model, data: Mapping[str, TrainingData]) -> str:
    """Markdown. `data`: what is known of training data, by digest."""
    config = model.config
    parts = [
        _FRONT.format(colour="luma" if config.colour == "y" else "rgb", scale=config.scale),
        f"# {model.name}\n",
        f"{model.purpose}\n",
        "Written by `livesr models` from the files beside it; the words are those of `notes.md`.\n",
        _network(model).markdown(),
        *_evaluation(model),
        *_training(model, data),
    ]
    if model.notes:
        parts += ["## Notes\n", f"{model.notes}\n"]
    return "\n".join(parts)


def network_line(model: Model) -> str:
    config = model.config
    colour = "luma" if config.colour == "y" else "RGB"
    awrus = f"{config.awrus} AWRU" + "s" * (config.awrus > 1)
    shape = f"{config.lfbs} LFB × {awrus}, n{config.features} b{config.block_features}"
    grid = " at half the resolution" if config.grid == 2 else ""
    context = ", context" if config.context else ""
    return f"{colour}, {shape}{grid}, AWMS {'+'.join(map(str, config.kernels))}{context}"


def _network(model: Model) -> Table:
    config, artifact = model.config, model.artifact
    rows = [
        ("Network", network_line(model)),
        ("Scale", f"×{config.scale}"),
        ("Parameters", kilo(config.parameters)),
        ("Mult-Adds, as the paper counts", giga(config.mult_adds)),
        ("MAC per LR pixel, folded", kilo(config.folded_macs_per_lr_pixel)),
        ("INT8 from float32", "–" if artifact.parity_db is None else f"{artifact.parity_db:.1f} dB"),
        ("INT8 built by", ", ".join(f"{tool} {version}" for tool, version in artifact.tools.items())),
        ("SHA-256 of the checkpoint", f"`{model.checkpoint_sha256}`"),
    ]
    return Table(header=("", ""), rows=rows, names=2)


def _evaluation(model: Model) -> Iterator[str]:
    evaluation = model.evaluation
    if evaluation is None:
        return
    material = evaluation.material
    yield "## Evaluation\n"
    yield (
        f"By `livesr evaluate --model {model.name} --scale {model.config.scale} {material.options()}`"
        " and, for float32, `--precision float32`.\n"
    )
    if material.sets:
        yield "Clean LR, by the papers' protocol: PSNR-Y in dB and SSIM-Y.\n"
        yield image_table([evaluation.bicubic, evaluation.float32, evaluation.int8], material.sets).markdown()
    if material.videos:
        compressed = "compressed by x264 as a live encoder is set" if material.crfs else "not compressed"
        yield (
            f"Clips, LR by MATLAB's bicubic and {compressed}. What INT8 has over Lanczos, on average and, in"
            " brackets, at worst; of flicker less is better:\n"
        )
        yield _gains(model).markdown()
        yield "Each clip:\n"
        yield video_table([evaluation.lanczos, evaluation.int8], material.videos).markdown()


def _gains(model: Model) -> Table:
    assert model.evaluation is not None
    rows = []
    for crf in (*model.evaluation.material.crfs, None):
        of = pairs(model.evaluation, crf)
        found = gains(of)
        rows.append(
            (
                "all" if crf is None else str(crf),
                str(len(of)),
                gained(found.psnr_db, 2),
                gained(found.vmaf, 2),
                gained(found.vmaf_neg, 2),
                gained(found.flicker, 3),
            )
        )
    header = ("CRF", "results", "PSNR-Y, dB", "VMAF", "VMAF-NEG", "flicker")
    return Table(header=header, rows=rows, names=1)


def gained(gain: Gain | None, digits: int) -> str:
    return "–" if gain is None else f"{gain.mean:+z.{digits}f} ({gain.worst:+z.{digits}f})"


def _training(model: Model, data: Mapping[str, TrainingData]) -> Iterator[str]:
    yield "## Training\n"
    yield (
        "Its runs, the first one first; a later one begins with the weights of the one before. Minutes are of"
        " the machine that it was trained on, beside other work.\n"
    )
    yield _runs(model).markdown()
    yield "Its data, by the digest of the pixels:\n"
    yield _data(model, data).markdown()


def _runs(model: Model) -> Table:
    rows = []
    for run in model.runs():
        recipe = run["recipe"]
        losses = [recipe.get("loss", "L1")]
        weighed = ("detail", "lanczos", "teacher")
        losses += [f"{name} {recipe[name]:g}" for name in weighed if recipe.get(name)]
        losses += ["QAT"] if recipe.get("qat") else []
        whole, done = recipe["iterations"], run["iteration"]
        minutes = run.get("minutes")
        rows.append(
            (
                ", ".join(losses),
                f"{done:,}" if done == whole else f"{done:,} of {whole:,}",
                str(recipe["batch"]),
                f"{recipe['learning_rate']:g}",
                str(recipe["collapsible"]) if recipe.get("collapsible") else "–",
                "BF16" if recipe["bf16"] else "float32",
                run["data_sha256"][:8],
                "–" if minutes is None else f"{minutes:.0f}",
            )
        )
    header = ("loss", "iterations", "batch", "first rate", "collapsible", "arithmetic", "data", "minutes")
    return Table(header=header, rows=rows, names=1)


def _data(model: Model, data: Mapping[str, TrainingData]) -> Table:
    rows = []
    for digest in dict.fromkeys(run["data_sha256"] for run in model.runs()):
        if (known := data.get(digest)) is None:
            rows.append((digest[:8], "–", "–", "–"))
        else:
            licences = ", ".join(f"{count} {licence}" for licence, count in known.licences.items())
            rows.append((digest[:8], known.pictures, licences, known.lr))
    return Table(header=("data", "pictures", "licences", "LR"), rows=rows, names=4)
