"""The training loop: L1, Adam, a short warm-up and a cosine to zero; resumes where it was killed."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import l1_loss

from engine.awsrn import Awsrn
from engine.checkpoint import save_checkpoint
from engine.config import AwsrnConfig
from training.data import PackedPairs, PatchSampler, image_files, read_rgb
from training.evaluate import hr_folder
from training.quality import psnr, rgb_to_y
from training.resize import crop_to_multiple, downscale


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run: the network, and how it is trained."""

    config: AwsrnConfig
    iterations: int
    batch: int = 16
    lr_patch: int = 48
    learning_rate: float = 2e-3
    warmup: int = 50
    ema_decay: float = 0.999
    seed: int = 0
    save_every: int = 500
    evaluate_every: int = 2000

    def rate(self, iteration: int) -> float:
        if iteration < self.warmup:
            return self.learning_rate * (iteration + 1) / self.warmup
        progress = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def to_network(rgb: NDArray[np.uint8], config: AwsrnConfig) -> Tensor:
    """(B, h, w, 3) uint8 RGB → (B, C, h, w) float32 on the 0-255 scale, channels last."""
    if config.colour == "y":
        return torch.from_numpy(rgb_to_y(rgb).astype(np.float32))[:, None]
    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float()
    return planes.contiguous(memory_format=torch.channels_last)


def train(recipe: Recipe, *, data: Path, validation: Path | None, run: Path) -> Path:
    """Trains to the recipe's end and returns the checkpoint (the averaged weights).

    `run` keeps the state that a later call goes on from. Raises ValueError on unusable data or a NaN loss.
    """
    run.mkdir(parents=True, exist_ok=True)
    scale = recipe.config.scale
    pairs = PackedPairs(data, scale, run / "cache", min_side=recipe.lr_patch * scale)
    torch.manual_seed(recipe.seed)
    sampler = PatchSampler(pairs, recipe.lr_patch, np.random.default_rng(recipe.seed))
    network = Awsrn(recipe.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Awsrn(recipe.config)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    state_file, checkpoint = run / "state.pt", run / "checkpoint.safetensors"
    first, trained_s = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != json.dumps(asdict(recipe)):
            raise ValueError(f"{state_file} is of another recipe, {state['recipe']}: use another run folder")
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.rng.bit_generator.state = json.loads(state["rng"])
        first, trained_s = state["iteration"], state["trained_s"]

    def save(iteration: int) -> None:
        state = {
            "recipe": json.dumps(asdict(recipe)),
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": json.dumps(sampler.rng.bit_generator.state),
            "iteration": iteration,
            "trained_s": trained_s,
        }
        torch.save(state, state_file.with_suffix(".partial"))
        os.replace(state_file.with_suffix(".partial"), state_file)
        save_checkpoint(checkpoint, average, provenance(recipe, data, pairs.sha256, iteration, trained_s))

    losses: list[float] = []
    for iteration in range(first, recipe.iterations):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(iteration)
        lr, hr = sampler.batch(recipe.batch)
        loss = l1_loss(network(to_network(lr, recipe.config)), to_network(hr, recipe.config))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(f"loss is {losses[-1]} at iteration {iteration}; {state_file} is still good")
        optimizer.step()
        with torch.no_grad():
            for mine, its in zip(average.parameters(), network.parameters(), strict=True):
                mine.lerp_(its, 1 - min(recipe.ema_decay, (iteration + 1) / (iteration + 10)))
        trained_s += time.perf_counter() - began
        done = iteration + 1
        if done % recipe.save_every == 0 or done == recipe.iterations:
            save(done)
            rate = done / trained_s
            left_min = (recipe.iterations - done) / rate / 60
            mean = float(np.mean(losses))
            line = f"{done}/{recipe.iterations}  L1 {mean:.3f}  {rate:.1f} it/s  {left_min:.0f} min left"
            if validation and (done % recipe.evaluate_every == 0 or done == recipe.iterations):
                line += f"  {validation.name} {luma_psnr(average, validation):.2f} dB"
            print(line, file=sys.stderr, flush=True)
            losses.clear()
    return checkpoint


def luma_psnr(network: Awsrn, folder: Path) -> float:
    """A quick look while training: mean PSNR-Y of the bare network, in dB; `evaluate` is the judge."""
    scale, values = network.config.scale, []
    inner = (slice(scale, -scale), slice(scale, -scale))
    for file in image_files(hr_folder(folder)):
        hr = crop_to_multiple(read_rgb(file), scale)
        with torch.inference_mode():
            sr = network(to_network(downscale(hr, scale)[None], network.config))[0].numpy()
        pixels = np.clip(sr, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
        luma = sr[0].astype(np.float64) if network.config.colour == "y" else rgb_to_y(pixels)
        values.append(psnr(luma[inner], rgb_to_y(hr)[inner]))
    return float(np.mean(values))


def provenance(recipe: Recipe, data: Path, digest: str, iteration: int, trained_s: float) -> dict[str, Any]:
    """What a checkpoint says of its making: recipe, data, effort and the code's revision."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "recipe": asdict(recipe),
        "data": data.name,
        "data_sha256": digest,
        "iteration": iteration,
        "minutes": round(trained_s / 60, 1),
        "revision": revision.stdout.strip() or None,
    }
