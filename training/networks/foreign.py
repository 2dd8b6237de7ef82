"""Where spandrel comes in: networks of others, told by the names and shapes of their weights.

Only tensors are read from a file; a pickle that would do anything else is refused.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.config import ColourKind
from engine.errors import InvalidCheckpoint
from engine.network.pytorch_file import check_finite, in_one_line, read_pytorch

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignNetwork:
    """`network`: (B, C, h, w) on 0-255 → (B, C, s·h, s·w), clamped. `architecture` is spandrel's name for it.
    `mult_adds` are those of PyTorch's own counter, convolutions and products of matrices, at 1280×720."""

    architecture: str
    scale: int
    colour: ColourKind
    network: nn.Module = field(repr=False)
    parameters: int
    mult_adds: float


def load_foreign(path: Path) -> ForeignNetwork:
    """Raises ModelNotFound, InvalidCheckpoint, and ModuleNotFoundError where spandrel isn't installed."""
    with _without_torchvision():  # optional as well: hence here
        from spandrel import ImageModelDescriptor, ModelLoader, canonicalize_state_dict
    state = read_pytorch(path)
    if not isinstance(state, dict):
        raise InvalidCheckpoint(f"{path} holds a {type(state).__name__}, must be a dictionary of tensors")
    with _spandrels_errors(path):
        model = ModelLoader(device="cpu").load_from_state_dict(canonicalize_state_dict(state))
    if not isinstance(model, ImageModelDescriptor) or model.scale < 2:
        raise InvalidCheckpoint(f"{path} is of {model.architecture.name}, which enlarges no pictures")
    if model.input_channels not in (1, 3) or model.output_channels != model.input_channels:
        channels = f"{model.input_channels} to {model.output_channels}"
        raise InvalidCheckpoint(f"{path} takes {channels} channels, must be 1 to 1 or 3 to 3")
    check_finite(path, model.model.named_parameters())
    network = Foreign(model).eval()
    with _spandrels_errors(path):
        mult_adds = _mult_adds(network, model.input_channels, model.scale)
    return ForeignNetwork(
        architecture=model.architecture.name,
        scale=model.scale,
        colour="rgb" if model.input_channels == 3 else "y",
        network=network,
        parameters=sum(p.numel() for p in network.parameters()),
        mult_adds=mult_adds,
    )


class Foreign(nn.Module):
    """The network with its sizes padded as it needs, on 0-255."""

    def __init__(self, model: "ImageModelDescriptor[nn.Module]") -> None:
        super().__init__()
        self.model = model.model
        self._padded = model

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self._padded(lr / 255)
        return sr * 255


def _mult_adds(network: nn.Module, channels: int, scale: int) -> float:
    side = 64
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, side, side))
    flops: float = counter.get_total_flops()
    return flops / 2 * (1280 * 720) / (side * scale) ** 2


@contextmanager
def _spandrels_errors(path: Path) -> Iterator[None]:
    """It takes shapes for granted, so that weights of other networks end it anywhere, in any way."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as exc:
        released = "those that AWSRN's authors released are for livesr convert"
        words = f"spandrel makes no network of it ({in_one_line(exc)}); {released}"
        raise InvalidCheckpoint(f"{path}: {words}") from exc


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Lets spandrel be imported where torchvision can't be: a wheel for GPUs fails beside PyTorch's for CPUs.

    Two architectures want three of its functions, and neither enlarges pictures."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        functional = ModuleType("torchvision.transforms.functional")
        for function in ("InterpolationMode", "rotate", "normalize"):
            setattr(functional, function, None)
        stand_ins = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
        stand_ins[functional.__name__] = functional
        sys.modules.update(stand_ins)
        try:
            yield
        finally:
            for name in stand_ins:
                del sys.modules[name]
    else:
        yield
