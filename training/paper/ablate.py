"""The paper's ablations: the networks of a table, trained alike and judged on the same sets."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.judge.evaluate import evaluate
from training.judge.torch_upscale import torch_image
from training.networks import (
    BaselineConfig,
    LoadedNetwork,
    NetworkConfig,
    counts,
    load_network,
    named_config,
    without_branches,
)
from training.paper.ablation_tables import SCALE, TABLES, PaperTable, Variant
from training.report.render import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network of a table. `parameters_added` is against the first of its group; `alpha` is the learned
    weight of the branch taken out; `psnr_db` the mean of the sets' own, in dB on Y."""

    label: str
    parameters: int
    parameters_added: int
    mult_adds: float
    alpha: float | None
    sets: dict[str, float]
    psnr_db: float
    paper_alpha: float | None
    paper_psnr_db: float | None


def ablate(
    table: PaperTable, train_network: Callable[[str, NetworkConfig], Path], sets: dict[str, Path]
) -> Iterator[Row]:
    """Trains every network, then judges row by row. `train_network` gives the checkpoint of one by its name
    and configuration."""
    trained = {}
    for name in networks(table):
        trained[name] = load_network(train_network(name, named_config(name, SCALE)))
    for group in table.groups:
        base: int | None = None
        for variant in group:
            row = _judge(variant, trained[variant.network], sets)
            base = row.parameters if base is None else base
            yield replace(row, parameters_added=row.parameters - base)


def removals(loaded: LoadedNetwork, sets: dict[str, Path]) -> Iterator[Row]:
    """Table 4 of one trained network: whole, then with each AWMS branch taken out, beside what the paper has
    of AWSRN-B. Raises ValueError where there are not several branches."""
    kernels = () if isinstance(loaded.config, BaselineConfig) else loaded.config.kernels
    if len(kernels) < 2:
        raise ValueError(f"AWMS branches {kernels} must be several: one is taken out at a time")
    published = {variant.without: variant for variant in TABLES["table4"].groups[-1]}
    base = None
    for kernel in (None, *kernels):
        paper = published.get(kernel)
        variant = Variant(
            label="whole" if kernel is None else f"without {kernel}×{kernel}",
            network="",
            without=kernel,
            paper_psnr_db=paper.paper_psnr_db if paper else None,
            paper_alpha=paper.paper_alpha if paper else None,
        )
        row = _judge(variant, loaded, sets)
        base = row.parameters if base is None else base
        yield replace(row, parameters_added=row.parameters - base)


def networks(table: PaperTable) -> list[str]:
    """The networks that a table compares, each once, in its order."""
    return list(dict.fromkeys(variant.network for group in table.groups for variant in group))


def _judge(variant: Variant, loaded: LoadedNetwork, sets: dict[str, Path]) -> Row:
    alpha = None
    if variant.without is not None:
        alpha = float(loaded.network.state_dict()[f"tail.alphas.k{variant.without}"])
        loaded = without_branches(loaded, {variant.without})
    print(f"judging {variant.label}", file=sys.stderr)
    upscale, scale = torch_image(loaded.network, loaded.config), loaded.config.scale
    psnr_db = {name: evaluate(upscale, scale, folder).psnr_db for name, folder in sets.items()}
    cost = counts(loaded.config)
    return Row(
        label=variant.label,
        parameters=cost.parameters,
        parameters_added=0,
        mult_adds=cost.mult_adds,
        alpha=alpha,
        sets=psnr_db,
        psnr_db=sum(psnr_db.values()) / len(psnr_db),
        paper_alpha=variant.paper_alpha,
        paper_psnr_db=variant.paper_psnr_db,
    )


def as_table(rows: list[Row], note: str) -> Table:
    """Counts, PSNR-Y of each set and their mean, and the paper's figures."""
    sets = list(rows[0].sets)
    several = len(sets) > 1
    alphas = any(row.alpha is not None for row in rows)
    header = ["", "parameters", "added", "Mult-Adds", *["α"] * alphas, *sets, *["mean"] * several]
    header += [*["paper: α"] * alphas, "paper: PSNR-Y"]
    lines = []
    for row in rows:
        giga = f"{row.mult_adds / 1e9:.1f} G"
        line = [row.label, f"{row.parameters:,}", f"{row.parameters_added:+,}", giga]
        line += [_cell(row.alpha, 4)] * alphas
        line += [_cell(row.sets[name], 2) for name in sets]
        line += [_cell(row.psnr_db, 2)] * several
        line += [_cell(row.paper_alpha, 4)] * alphas
        lines.append([*line, _cell(row.paper_psnr_db, 2)])
    return Table(header=header, rows=lines, names=1, note=note)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
