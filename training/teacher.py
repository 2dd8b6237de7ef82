"""Distillation: what larger trained networks make of the same LR is a second target beside the original.

A patch learns from the teacher that is nearest to its original, and from none where the network itself is
nearer. For a teacher is good at what it was trained on only: one for clean pictures keeps a codec's artefacts
as if they were detail, and is further from the original than the small network on eight in ten compressed
patches; one for compressed pictures smooths clean ones. Patch by patch it is seen which it is, without being
told how LR was made.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.shipped import model_name
from training.networks import NetworkConfig, load_network, looks_around


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A trained network in evaluation mode; `sha256` is of its checkpoint."""

    name: str
    sha256: str
    network: nn.Module = field(repr=False)


def load_teacher(path: Path, config: NetworkConfig) -> Teacher:
    """Teacher of a network of `config`. Raises ModelNotFound or InvalidCheckpoint, and ValueError where it is
    of another scale or colour."""
    loaded = load_network(path)
    theirs, ours = (f"×{c.scale} in {c.colour}" for c in (loaded.config, config))
    if theirs != ours:
        raise ValueError(f"--teacher {path} is {theirs}, must be {ours} as the network that it teaches")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Teacher(name=model_name(path), sha256=sha256, network=loaded.network.requires_grad_(False))


@torch.no_grad()
def taught(teachers: Sequence[Teacher], lr: Tensor, around: Tensor | None = None) -> list[Tensor]:
    """Each teacher's picture of LR: (B, C, h, w) → (B, C, s·h, s·w) float32. `around`: what those see
    that look around."""

    def picture(network: nn.Module) -> Tensor:
        drawn: Tensor
        if looks_around(network) and around is not None:
            drawn = network(lr, torch.sigmoid(network.compressed(around)))
        else:
            drawn = network(lr)
        return drawn.float()

    return [picture(teacher.network) for teacher in teachers]
