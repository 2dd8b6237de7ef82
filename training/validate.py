"""What a run says of itself while it goes: a quick PSNR, and where its weights come from."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.data.images import hr_folder, image_files, read_rgb
from training.data.pairs import PackedPairs, to_network
from training.data.resize import crop_to_multiple, downscale
from training.quality import psnr, rgb_to_y
from training.recipes import Recipe


def luma_psnr(network: nn.Module, recipe: Recipe, folder: Path) -> float:
    """A quick look while training: mean PSNR-Y of the bare network, in dB; `livesr evaluate` is the judge."""
    scale, values = recipe.config.scale, []
    inner = (slice(scale, -scale), slice(scale, -scale))
    device = next(network.parameters()).device
    training = network.training
    network.eval()  # batch normalisation neither looks at these pictures nor learns from them
    for file in image_files(hr_folder(folder)):
        hr = crop_to_multiple(read_rgb(file), scale)
        with torch.inference_mode():
            lr = to_network(downscale(hr, scale)[None], recipe.config.colour).to(device)
            sr = network(lr)[0].float().cpu().numpy()
        pixels = np.clip(sr, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
        luma = sr[0].astype(np.float64) if recipe.config.colour == "y" else rgb_to_y(pixels)
        values.append(psnr(luma[inner], rgb_to_y(hr)[inner]))
    network.train(training)
    return float(np.mean(values))


def provenance(recipe: Recipe, pairs: PackedPairs, iteration: int, trained_s: float) -> dict[str, Any]:
    """What a checkpoint says of its making: recipe, data, effort and the code's revision."""
    git = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "recipe": recipe.to_dict(),
        "data": pairs.name,
        "data_sha256": pairs.sha256,
        "iteration": iteration,
        "minutes": round(trained_s / 60, 1),
        "revision": revision.stdout.strip() or None,
    }


def runs_of(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The trainings that a checkpoint's provenance tells of, the last one first. Pruning and conversion are
    steps between them that have no recipe."""
    run: Mapping[str, Any] | None = provenance
    while run is not None:
        if "recipe" in run:
            yield run
        run = run.get("began_with")
