"""Figures 4 and 5 of the paper: what AWRUs and AWMS have learned to weigh, and what each branch draws."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pixel_shuffle

from engine.network.awsrn import AWMS, AWRU, PIXEL_SCALE
from training.data.images import Rgb
from training.data.pairs import to_network
from training.networks import LoadedNetwork
from training.report.plots import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Lambdas:
    """The weights of each AWRU in the order that a picture passes them."""

    res: tuple[float, ...]
    x: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchOutput:
    """What one AWMS branch adds to the result: α · PixelShuffle(conv(x)), (H, W, C) on the 0-255 scale."""

    kernel: int
    alpha: float
    output: NDArray[np.float32]


def lambdas(loaded: LoadedNetwork) -> Lambdas:
    """Raises ValueError where the network has no AWRU."""
    units = [module for module in loaded.network.modules() if isinstance(module, AWRU)]
    if not units:
        raise ValueError(f"the network must have AWRUs, {loaded.config} has none")
    return Lambdas(
        res=tuple(unit.lambda_res.item() for unit in units), x=tuple(unit.lambda_x.item() for unit in units)
    )


def branch_outputs(loaded: LoadedNetwork, lr: Rgb) -> list[BranchOutput]:
    """Output of each branch for one picture (h, w, 3). Raises ValueError where the network has no AWMS."""
    tails = [module for module in loaded.network.modules() if isinstance(module, AWMS)]
    if not tails:
        raise ValueError(f"the network must have an AWMS, {loaded.config} has none")
    tail = tails[0]
    features: list[Tensor] = []
    handle = tail.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.inference_mode():
        loaded.network(to_network(lr[None].copy(), loaded.config.colour))  # Pillow's arrays are read-only
        handle.remove()
        outputs = []
        for name, conv in tail.branches.items():
            alpha = tail.alphas[name]
            drawn = pixel_shuffle(alpha * conv(features[0]), tail.scale) * PIXEL_SCALE
            outputs.append(
                BranchOutput(
                    kernel=int(name.removeprefix("k")),
                    alpha=alpha.item(),
                    output=drawn[0].permute(1, 2, 0).numpy(),
                )
            )
    return outputs


def figure_4(loaded: LoadedNetwork) -> Figure:
    """λ_res and λ_x over depth."""
    values = lambdas(loaded)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    depth = range(1, len(values.res) + 1)
    axes.plot(depth, values.res, marker="o", label="λ_res, residual branch")
    axes.plot(depth, values.x, marker="s", label="λ_x, shortcut")
    axes.set_xlabel("AWRU, from the input on")
    axes.set_ylabel("weight")
    axes.set_xticks(list(depth))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def figure_5(loaded: LoadedNetwork, lr: Rgb) -> Figure:
    """Each branch's output: grey is zero, and every panel has the contrast that its own values fill."""
    outputs = branch_outputs(loaded, lr)
    height, width = outputs[0].output.shape[:2]
    size = (4.0 * len(outputs), 4.0 * height / width + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    for i, branch in enumerate(outputs):
        axes = figure.add_subplot(1, len(outputs), i + 1)
        # The few strongest edges would leave all else grey.
        reach = max(float(np.quantile(np.abs(branch.output), 0.995)), 1e-6)
        picture = np.clip(branch.output / (2 * reach) + 0.5, 0, 1)
        axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
        k = branch.kernel
        axes.set_title(f"{k}×{k}, α = {branch.alpha:.4f}, values ±{reach:.1f}")
        axes.set_axis_off()
    return figure
