"""How a network is trained: the paper's recipe, and one for a budget of minutes."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from engine.config import AwsrnConfig
from training.networks import NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run. Defaults are the paper's (section 4.2): Adam, L1, batch 16, LR patches of 48×48, a rate of
    1e-3 halved every 200,000 iterations, no average."""

    config: NetworkConfig
    iterations: int = 1_000_000
    batch: int = 16
    lr_patch: int = 48
    schedule: Literal["step", "cosine"] = "step"
    learning_rate: float = 1e-3
    halve_every: int = 200_000  # of "step"
    warmup: int = 0
    ema_decay: float = 0.0  # 0: the weights themselves are the result
    loss: Literal["L1", "L2", "PSNR"] = "L1"  # the paper's is L1; PSNR is the patches' own, in dB
    detail: float = 0.0  # weight of `training.losses.LostDetail` beside it
    lanczos: float = 0.0  # weight of `training.losses.WorseThanLanczos`
    teacher: float = 0.0  # weight of being unlike the nearest teacher (`training.teacher`)
    collapsible: int = 0  # channels between the two halves of each convolution; 0: plain ones
    gradient_norm: float = 0.0  # gradients are scaled down to it where they are larger; 0: never
    bf16: bool = False
    qat: bool = False  # compute as the INT8 artifact will (`training.networks.quantised`)
    seed: int = 0
    save_every: int = 500
    evaluate_every: int = 2_000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "lr_patch", "halve_every", "save_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must be from 0 to below 1")
        for name in ("detail", "lanczos", "teacher", "collapsible", "gradient_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be zero or more")
        if isinstance(self.config, AwsrnConfig) and self.config.context and self.batch < 2:
            raise ValueError("batch=1 must be at least 2: a context is normalised over the batch")
        if self.qat and (self.bf16 or self.collapsible):
            # BF16 rounds as coarsely as INT8 itself, and it is the collapsed kernels that are to be rounded.
            raise ValueError("qat excludes bf16 and collapsible convolutions")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be greater than zero")

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, the first being 0."""
        if iteration < self.warmup:
            return self.learning_rate * (iteration + 1) / self.warmup
        if self.schedule == "step":
            return self.learning_rate * 0.5 ** (iteration // self.halve_every)
        progress = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paper_recipe(config: NetworkConfig) -> Recipe:
    """The paper's own, a million iterations: for GPUs."""
    return Recipe(config=config)


def short_recipe(config: NetworkConfig, iterations: int = 16_000) -> Recipe:
    """Makes the most of few iterations: a higher rate, warmed up, cosine to zero, averaged weights."""
    return Recipe(
        config=config,
        iterations=iterations,
        schedule="cosine",
        learning_rate=2e-3,
        warmup=50,
        ema_decay=0.999,
    )


def fine_tune_recipe(config: NetworkConfig, iterations: int = 4_000) -> Recipe:
    """Recipe for a network that was trained and then changed, by pruning say: a low rate, cosine to zero."""
    return replace(short_recipe(config, iterations), learning_rate=4e-4)
