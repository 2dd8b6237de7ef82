"""The paper's ablations: the networks of a table, trained alike and judged on the same sets."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.ablation_tables import SCALE, PaperTable, Variant
from training.evaluate import evaluate
from training.networks import (
    BaselineConfig,
    LoadedNetwork,
    NetworkConfig,
    build_network,
    counts,
    load_network,
    named_config,
)
from training.render import Table
from training.torch_upscale import torch_image


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
    """Row by row. `train_network` gives the checkpoint of a network by its name and configuration."""
    for group in table.groups:
        trained: dict[str, LoadedNetwork] = {}
        base: int | None = None
        for variant in group:
            name = variant.network
            if name not in trained:
                trained[name] = load_network(train_network(name, named_config(name, SCALE)))
            row = _judge(variant, trained[name], sets)
            base = row.parameters if base is None else base
            yield replace(row, parameters_added=row.parameters - base)


def _judge(variant: Variant, loaded: LoadedNetwork, sets: dict[str, Path]) -> Row:
    alpha = None
    if variant.without is not None:
        alpha = float(loaded.network.state_dict()[f"tail.alphas.k{variant.without}"])
        loaded = without_branch(loaded, variant.without)
    print(f"judging {variant.label}", file=sys.stderr)
    upscale = torch_image(loaded.network, loaded.config)
    psnr_db = {name: evaluate(upscale, SCALE, folder).psnr_db for name, folder in sets.items()}
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


def without_branch(loaded: LoadedNetwork, kernel: int) -> LoadedNetwork:
    """The network with one AWMS branch taken out and nothing else changed. Raises ValueError where it is not
    there, or is the only one."""
    config = loaded.config
    if isinstance(config, BaselineConfig) or kernel not in config.kernels or len(config.kernels) == 1:
        raise ValueError(f"kernel {kernel} must be one of several AWMS branches of {config}")
    smaller = replace(config, kernels=tuple(k for k in config.kernels if k != kernel))
    network = build_network(smaller)
    kept = network.state_dict().keys()
    network.load_state_dict({n: t for n, t in loaded.network.state_dict().items() if n in kept})
    return LoadedNetwork(config=smaller, network=network.eval(), provenance=loaded.provenance)


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
