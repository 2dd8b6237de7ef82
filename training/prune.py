"""Pruning AWMS, the paper's third contribution: branches that carry little are removed, the rest fine-tuned.

Which ones: by the learned α (paper, table 4), by the PSNR that removing one costs, or by name.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from engine.config import AwsrnConfig
from training.networks import LoadedNetwork, without_branches
from training.recipes import fine_tune_recipe
from training.validate import luma_psnr


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch of the AWMS: its kernel, its learned α, and the PSNR-Y in dB that its removal costs."""

    kernel: int
    alpha: float
    cost_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is removed: listed kernels, those with |α| below a bound, those that cost less than a bound."""

    kernels: tuple[int, ...] = ()
    alpha_below: float | None = None
    cost_below_db: float | None = None

    def removes(self, branch: Branch) -> bool:
        return (
            branch.kernel in self.kernels
            or (self.alpha_below is not None and abs(branch.alpha) < self.alpha_below)
            or (self.cost_below_db is not None and branch.cost_db < self.cost_below_db)
        )


def measure_branches(trained: LoadedNetwork, folder: Path) -> tuple[float, list[Branch]]:
    """PSNR-Y in dB of a whole AWSRN on a folder of HR images, and every branch's part in it."""
    assert isinstance(trained.config, AwsrnConfig)
    recipe, kernels = fine_tune_recipe(trained.config), trained.config.kernels

    def quality(network: nn.Module) -> float:
        return luma_psnr(network, recipe, folder)

    whole_db = quality(trained.network)
    branches = []
    for kernel in kernels:
        alpha = float(trained.network.state_dict()[f"tail.alphas.k{kernel}"])
        cost_db = float("inf")
        if len(kernels) > 1:
            cost_db = whole_db - quality(without_branches(trained, {kernel}).network)
        branches.append(Branch(kernel=kernel, alpha=alpha, cost_db=cost_db))
    return whole_db, branches
