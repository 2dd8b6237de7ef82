"""Pruning AWMS, the paper's third contribution: branches that carry little are removed, the rest fine-tuned.

Which ones: by the learned α (paper, table 4), by the PSNR that removing one costs, or by name.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from engine.awsrn import Awsrn
from engine.checkpoint import Checkpoint
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


def remove_branches(checkpoint: Checkpoint, kernels: set[int]) -> Checkpoint:
    """The checkpoint without these AWMS branches, its other weights as they are.

    Raises ValueError where a kernel is not there, or nothing would be left.
    """
    there = checkpoint.config.kernels
    for kernel in sorted(kernels):
        if kernel not in there:
            raise ValueError(f"kernel {kernel} cannot be removed: the AWMS has {there}")
    kept = tuple(k for k in there if k not in kernels)
    if not kept:
        raise ValueError(f"removing {sorted(kernels)} leaves nothing of the AWMS {there}")
    gone = tuple(f"tail.{part}.k{k}" for part in ("branches", "alphas") for k in kernels)

    def removed(name: str) -> bool:
        return any(name == prefix or name.startswith(prefix + ".") for prefix in gone)

    state: dict[str, Tensor] = {n: t for n, t in checkpoint.state.items() if not removed(n)}
    provenance = checkpoint.provenance | {"pruned_from": checkpoint.sha256, "removed": sorted(kernels)}
    return Checkpoint(config=replace(checkpoint.config, kernels=kept), state=state, provenance=provenance)


def measure_branches(checkpoint: Checkpoint, folder: Path) -> tuple[float, list[Branch]]:
    """PSNR-Y in dB of the whole network on a folder of HR images, and every branch's part in it."""

    def quality(network: Awsrn) -> float:
        return luma_psnr(network, fine_tune_recipe(network.config), folder)

    whole_db = quality(checkpoint.network())
    branches = []
    for kernel in checkpoint.config.kernels:
        alpha = float(checkpoint.state[f"tail.alphas.k{kernel}"])
        if len(checkpoint.config.kernels) == 1:
            cost_db = float("inf")
        else:
            cost_db = whole_db - quality(remove_branches(checkpoint, {kernel}).network())
        branches.append(Branch(kernel=kernel, alpha=alpha, cost_db=cost_db))
    return whole_db, branches
