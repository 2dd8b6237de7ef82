"""What a network costs, by the conventions of the papers: parameters, and Mult-Adds at 1280×720."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.networks.build import build_network
from training.networks.config import NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    parameters: int
    mult_adds: float


def counts(config: NetworkConfig) -> Counts:
    """Counted from the modules. Mult-Adds are the convolutions' weights times their output pixels, for an
    output of 1280×720 whose LR size is not rounded; biases, activations and fixed interpolation are free.

    A transposed convolution is counted so as well, as the papers do, though each of its output pixels needs
    but one in s² of the weights: FSRCNN's true cost at ×2 is 2.9 G, not the 6.0 G they list.
    """
    # Without data: "meta" tensors have a shape only. Fixed taps come from NumPy, and are moved behind.
    with torch.device("meta"):
        network = build_network(config)
    network.to("meta")
    total = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        total += module.weight.numel() * output.shape[2] * output.shape[3]

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    channels = 3 if config.colour == "rgb" else 1
    # 1280/s × 720/s need not be whole, so the LR is taken at full size and the sum divided.
    network(torch.empty(1, channels, 720, 1280, device="meta"))
    parameters = sum(p.numel() for p in network.parameters())
    return Counts(parameters=parameters, mult_adds=total / config.scale**2)
