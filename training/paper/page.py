"""The page about the paper's networks as they were trained here, each figure beside the paper's own."""

from collections.abc import Mapping, Sequence

from engine.config import paper_config
from training.judge.evaluate import Result
from training.paper.ablation_tables import TABLES, Variant
from training.paper.runs import PAPERS_SET, VARIANTS, Branch, Reproduced, Run
from training.paper.tables import Cell, table_5
from training.recipes import paper_recipe
from training.report.plots import Figure
from training.report.render import Table, giga, kilo

_PAPERS = paper_recipe(paper_config("awsrn", 2))
PAPERS_PATCHES = _PAPERS.iterations * _PAPERS.batch


def page(
    networks: Sequence[Reproduced], bicubic: Mapping[int, Mapping[str, Result]], note: str, folder: str
) -> str:
    """Markdown. `bicubic`: what MATLAB's scores at each scale; `note`: a sentence on the data of the runs;
    `folder`: of the pictures, beside the page."""
    networks = in_order(networks)
    parts = [
        "# The paper's networks, trained here\n",
        "Written by `livesr paper`: runs and curves from the checkpoints, scores as it measures"
        " them in float32, the paper's figures from its tables 4 and 5"
        " ([arXiv 1904.02358](https://arxiv.org/abs/1904.02358)). It judges the checkpoints that it is given,"
        " and remembers what it has found of others.\n",
        "```sh\nlivesr paper --model CHECKPOINT --set Set5=DIR --set Set14=DIR --out docs/paper.md\n```\n",
        "## How far the runs went\n",
        f"The paper trains each network for {_PAPERS.iterations:,} iterations of {_PAPERS.batch} patches of"
        f" {_PAPERS.lr_patch}×{_PAPERS.lr_patch} LR pixels from DIV2K, at a first rate of"
        f" {_PAPERS.learning_rate:g}. {note}\n",
        _effort(networks).markdown(),
        "```sh\n" + "\n".join(_train(one) for one in networks) + "\n```\n",
        "## Quality\n",
        "PSNR-Y in dB / SSIM-Y on clean LR.\n",
        _quality(networks, bicubic).markdown(),
        *([_curves(networks, folder)] if any(one.curve for one in networks) else []),
        "## Table 4: AWMS branches taken out\n",
        f"What it costs on {PAPERS_SET}, in dB, to take a branch out of a trained network, beside the paper's"
        " two networks. No fine-tuning follows. Every α begins at 0.25.\n",
    ]
    for one in networks:
        parts += [f"### {one.label}\n", _removals(one).markdown(), _reading(one)]
    parts += [
        "## Figure 5: what each branch draws\n",
        "α · PixelShuffle(conv(x)) of each branch, as `livesr ablate figure5` draws it: mid-grey is zero, and"
        " each panel has the contrast that its own values fill.\n",
    ]
    parts += [f"![Branches of {one.label}]({folder}/figure5-{one.name}.png)\n" for one in networks]
    return "\n".join(parts)


def _curves(networks: Sequence[Reproduced], folder: str) -> str:
    ends = ", ".join(f"{one.label} {one.curve[-1][1]:.2f} dB" for one in networks if one.curve)
    without = ", ".join(one.label for one in networks if not one.curve)
    return (
        f"![PSNR-Y over the iterations of each network's last run]({folder}/curves.png)\n\n"
        f"Of the averaged weights, over the last run of each. The curves end at: {ends}."
        f"{f' Not recorded: {without}.' if without else ''}\n"
    )


def in_order(networks: Sequence[Reproduced]) -> list[Reproduced]:
    return sorted(networks, key=lambda one: (one.scale, VARIANTS.index(one.variant)))


def plot_curves(networks: Sequence[Reproduced], bicubic: Mapping[int, Mapping[str, Result]]) -> Figure:
    """A panel for each network's last run: PSNR-Y over its iterations, and the paper's result as a level."""
    traced = [one for one in in_order(networks) if one.curve]
    figure = Figure(figsize=(3.2 * len(traced), 3.2), layout="constrained")
    for index, one in enumerate(traced):
        axes = figure.add_subplot(1, len(traced), index + 1)
        iterations, psnr_db = zip(*one.curve, strict=True)
        axes.plot(iterations, psnr_db, marker=".", label="here")
        if (paper := _published(one, one.curve_set)) is not None:
            axes.axhline(paper.psnr_db, color="tab:red", linewidth=1, label="paper, at its end")
        if (base := bicubic.get(one.scale, {}).get(one.curve_set)) is not None:
            axes.axhline(base.psnr_db, color="grey", linestyle="--", linewidth=1, label="bicubic")
        axes.set_title(one.label)
        axes.set_xlabel("iterations")
        if index == 0:
            axes.set_ylabel(f"PSNR-Y on {one.curve_set}, dB")
            axes.legend(fontsize=8, loc="lower right")
        axes.grid(alpha=0.3)
    return figure


def _published(one: Reproduced, name: str) -> Cell | None:
    systems = [system for system in table_5(one.scale) if system.name == one.variant.upper()]
    return systems[0].cells.get(name) if systems else None


def _effort(networks: Sequence[Reproduced]) -> Table:
    rows = []
    for one in networks:
        run, *before = one.runs
        begun = f"{_label(before[0])} of {before[0].done:,} iterations" if before else "–"
        patches = sum(each.patches for each in one.runs)
        rows.append(
            (
                one.label,
                begun,
                f"{run.done:,}" if run.done == run.iterations else f"{run.done:,} of {run.iterations:,}",
                str(run.batch),
                f"{run.patches:,}",
                f"{patches:,}",
                f"{patches / PAPERS_PATCHES:.3%}",
                "–" if run.minutes is None else f"{run.minutes:.0f}",
            )
        )
    header = (
        "network", "weights begun with", "iterations", "batch", "patches", "with those before",
        "of the paper's", "minutes",
    )  # fmt: skip
    return Table(header=header, rows=rows, names=2)


def _label(run: Run) -> str:
    return f"{run.variant.upper() if run.variant else 'another network'} ×{run.scale}"


def _train(one: Reproduced) -> str:
    """The command of the last run."""
    run = one.runs[0]
    words = [
        f"livesr train short --model {one.variant} --scale {one.scale} --iterations {run.iterations}",
        f"--batch {run.batch} --learning-rate {run.learning_rate:g}",
        *["--bf16"] * run.bf16,
        *["--initial CHECKPOINT"] * (len(one.runs) > 1),
        "--data DIR",
        *[f"--validation DIR/{one.curve_set}"] * bool(one.curve),
        f"--out RUN/{one.name}",
    ]
    return " ".join(words)


def _quality(networks: Sequence[Reproduced], bicubic: Mapping[int, Mapping[str, Result]]) -> Table:
    sets = sorted({name for one in networks for name in one.sets}, key=lambda name: (len(name), name))
    header = ["network", "params", "Mult-Adds"]
    for name in sets:
        header += [f"{name}: bicubic", "here", "paper", "behind, dB"]
    damaged = False
    rows = []
    for one in networks:
        row = [one.label, kilo(one.parameters), giga(one.mult_adds)]
        for name in sets:
            here, base, paper = one.sets.get(name), bicubic[one.scale].get(name), _published(one, name)
            row += [_score(base), _score(here), _score(paper)]
            row.append(f"{paper.psnr_db - here.psnr_db:.2f}" if here and paper else "–")
            damaged = damaged or (paper is not None and paper.damaged)
        rows.append(row)
    note = "* misprinted in the paper, or damaged in the copy it was read from" if damaged else ""
    return Table(header=header, rows=rows, names=1, note=note)


def _score(result: Result | Cell | None) -> str:
    if result is None:
        return "–"
    mark = "*" if isinstance(result, Cell) and result.damaged else ""
    return f"{mark}{result.psnr_db:.2f} / {result.ssim:.4f}"


def _removals(one: Reproduced) -> Table:
    whole_db = one.whole_db
    groups = [{variant.without: variant for variant in group} for group in TABLES["table4"].groups]
    rows = []
    for branch in one.branches:
        row = [
            f"{branch.kernel}×{branch.kernel}",
            f"{branch.parameters:+,}",
            f"{branch.alpha:.4f}",
            f"{branch.without_db:.2f}",
            f"{whole_db - branch.without_db:.2f}",
        ]
        for group in groups:
            row += _paper_cost(group[None], group[branch.kernel])
        rows.append(row)
    header = ["taken out", "parameters", "α", f"{PAPERS_SET}, dB", "costs"]
    for group in groups:
        header += [f"{group[None].label}: α", "costs"]
    return Table(header=header, rows=rows, names=1)


def _paper_cost(whole: Variant, cut: Variant) -> tuple[str, str]:
    alpha = "–" if cut.paper_alpha is None else f"{cut.paper_alpha:.4f}"
    if cut.paper_psnr_db is None or whole.paper_psnr_db is None:
        return alpha, "lost in the copy"
    return alpha, f"{whole.paper_psnr_db - cut.paper_psnr_db:.2f}"


def _reading(one: Reproduced) -> str:
    """What the table says, as a sentence: whether α tells what a branch is worth, the paper's point."""
    by_alpha = sorted(one.branches, key=lambda branch: abs(branch.alpha), reverse=True)
    by_cost = sorted(one.branches, key=lambda branch: branch.without_db)
    sentence = f"Whole: {one.whole_db:.2f} dB. By |α|, the largest first: {_kernels(by_alpha)};"
    return f"{sentence} by what they cost: {_kernels(by_cost)}.\n"


def _kernels(branches: Sequence[Branch]) -> str:
    return ", ".join(f"{branch.kernel}×{branch.kernel}" for branch in branches)
