"""Collapsible convolutions (arXiv 2103.09404, section 3): wide while training, an ordinary convolution after.

A k×k convolution to many channels followed by a 1×1 one is linear, so both are one k×k kernel. That kernel is
made anew in each iteration ("collapsed online"), so a wide step costs hardly more than a plain one.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations


class Collapse(nn.Module):
    """Parametrization of a kernel by expand (width, in, k, k) and project (out, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, expand: Tensor, project: Tensor) -> Tensor:
        return (project @ expand.flatten(1)).view(-1, *expand.shape[1:])  # (out, in, k, k)

    def right_inverse(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Two random factors whose product is `kernel`."""
        out = kernel.shape[0]
        if self.width < out:
            raise ValueError(f"collapsible width={self.width} must be at least {out}, the output's channels")
        project = torch.randn(out, self.width) / self.width**0.5
        expand = torch.randn(self.width, *kernel.shape[1:]) * kernel.std()
        missing = kernel - self(expand, project)
        expand = expand + (torch.linalg.pinv(project) @ missing.flatten(1)).view_as(expand)
        return expand, project


def widen(network: nn.Module, width: int) -> nn.Module:
    """Makes every convolution of `network` that has weight norm collapsible instead, in place; its function
    stays.

    Raises ValueError where there is none, or one has more output channels than `width`.
    """
    normed = [m for m in network.modules() if isinstance(m, nn.Conv2d) and is_parametrized(m, "weight")]
    if not normed:
        raise ValueError(f"collapsible is for weight norm's convolutions, {type(network).__name__} has none")
    for conv in normed:
        remove_parametrizations(conv, "weight", leave_parametrized=True)
        register_parametrization(conv, "weight", Collapse(width))
    return network


@torch.no_grad()
def collapse(wide: nn.Module, plain: nn.Module) -> nn.Module:
    """Gives `plain`, a fresh network of the same configuration, the function of `wide`."""
    for name, module in wide.named_modules():
        if isinstance(module, nn.Conv2d) and is_parametrized(module, "weight"):
            plain.get_submodule(name).weight = module.weight  # weight norm takes it apart
    other = {n: t for n, t in wide.state_dict().items() if ".parametrizations." not in n}
    plain.load_state_dict(other, strict=False)  # biases, λ and α, and what normalisation has seen
    return plain
