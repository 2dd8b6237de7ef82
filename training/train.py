"""The training loop: a recipe's loss, and Adam; one or many devices; goes on bit by bit where it was killed.

Many devices: `torchrun --nproc-per-node N -m server train …`; each process draws patches of its own.
"""

import copy
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.files import replace_file
from engine.sample_frames import DEFAULT, sample_frames
from training.data.pairs import PackedPairs, PatchSampler, to_network
from training.devices import Devices
from training.losses import Loss
from training.networks import (
    LoadedNetwork,
    build_network,
    collapse,
    looks_around,
    quantise_aware,
    save_network,
    take_over,
    widen,
    without_quantisers,
)
from training.progress import Progress
from training.recipes import Recipe
from training.teacher import Teacher, taught
from training.validate import luma_psnr, provenance

Curve = list[tuple[int, float]]  # PSNR-Y in dB on the validation pictures after so many iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run came to: the checkpoint, and where the time of this call went, in seconds an iteration."""

    checkpoint: Path
    iteration_s: float
    waiting_s: float


def train(
    recipe: Recipe,
    *,
    pairs: PackedPairs,
    run: Path,
    validation: Path | None = None,
    initial: LoadedNetwork | None = None,
    teachers: Sequence[Teacher] = (),
    stop_after: int | None = None,
) -> Trained:
    """Trains to the recipe's end, or `stop_after` iterations more; leaves `run/checkpoint.safetensors`.

    `run` keeps the state that a later call goes on from; `initial` has weights to begin with, as many as fit;
    `teachers` are weighed by the recipe.
    Raises ValueError where `run` is of another recipe or the loss is no number, OSError where it can't save.
    """
    devices = Devices()
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.config)
    if initial is not None:
        fresh = take_over(network, initial.network)
        if fresh and devices.rank == 0:
            print(f"not in the weights to begin with: {', '.join(fresh)}", file=sys.stderr)
    if recipe.collapsible:
        widen(network, recipe.collapsible)
    if recipe.qat:
        frames = sample_frames(DEFAULT)[::2]  # those that `livesr build` takes ranges from
        quantise_aware(network, [torch.from_numpy(f.net_input(recipe.config.colour)) for f in frames])
    network = network.to(devices.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    for teacher in teachers:
        teacher.network.to(devices.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = RunState(run, recipe, [pairs.sha256, *(t.sha256 for t in teachers)], devices.count)
    first, trained_s, curve = state.load(network, average, optimizer)
    parallel = devices.wrap(network)
    colour = recipe.config.colour
    looking = any(looks_around(n) for n in (network, *(t.network for t in teachers)))
    sampler = PatchSampler(pairs, recipe.lr_patch, (recipe.seed, devices.rank), around=looking)
    last = recipe.iterations if stop_after is None else min(recipe.iterations, first + stop_after)
    waiting_s, began = 0.0, time.perf_counter()
    loss_of = Loss(recipe).to(devices.device)
    losses: list[Tensor] = []

    def plain(trained: nn.Module) -> nn.Module:
        if recipe.collapsible:
            return collapse(trained, build_network(recipe.config))
        return without_quantisers(trained, build_network(recipe.config)) if recipe.qat else trained

    def save(iteration: int) -> None:
        total_s = trained_s + time.perf_counter() - began
        state.save(network, average, optimizer, iteration, total_s, curve)
        result = plain(average if recipe.ema_decay else network)
        made_by = provenance(recipe, pairs, iteration, total_s)
        if validation and curve:
            made_by["validation"] = {"set": validation.name, "psnr_db": curve}
        if initial is not None:
            made_by["began_with"] = initial.provenance
        if teachers:
            made_by["teachers"] = [{"name": t.name, "sha256": t.sha256} for t in teachers]
        save_network(run / "checkpoint.safetensors", result, recipe.config, made_by)

    with ThreadPoolExecutor(1) as loader, Progress(run, recipe, first, devices.rank == 0) as progress:
        upcoming = loader.submit(sampler.batch, recipe.batch, first)
        for iteration in range(first, last):
            asked = time.perf_counter()
            patches = upcoming.result()
            waiting_s += time.perf_counter() - asked
            upcoming = loader.submit(sampler.batch, recipe.batch, iteration + 1)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(iteration)
            low = to_network(patches.lr, colour).to(devices.device)
            high = to_network(patches.hr, colour, exact=True).to(devices.device)
            around = None if patches.around is None else to_network(patches.around, colour).to(devices.device)
            with torch.autocast(devices.device.type, torch.bfloat16, enabled=recipe.bf16):
                # What is compressed is learnt from who knows it, not from what it is good for.
                logit = None
                if around is not None and looks_around(network):
                    logit = network.compressed(around)
                sr = parallel(low) if logit is None else parallel(low, torch.sigmoid(logit.detach()))
                lessons = taught(teachers, low, around)
            loss = loss_of(sr.float(), high, low, lessons)
            if logit is not None:
                known = torch.from_numpy(patches.compressed).float().to(devices.device)
                loss = loss + binary_cross_entropy_with_logits(logit.flatten(), known)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            losses.append(loss.detach())
            if recipe.gradient_norm:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_norm)
            optimizer.step()
            if recipe.ema_decay:
                follow(average, network, min(recipe.ema_decay, (iteration + 1) / (iteration + 10)))
            done = iteration + 1
            progress.advance()
            looks = done % recipe.evaluate_every == 0 or done == last
            if looks or done % recipe.save_every == 0:
                mean_loss = float(torch.stack(losses).mean())
                losses.clear()
                if not math.isfinite(mean_loss):
                    raise ValueError(
                        f"loss is {mean_loss} at iteration {done}; {state.path} is of the last good one"
                    )
                psnr_db = None
                if devices.rank == 0:
                    if validation and looks:
                        psnr_db = luma_psnr(average if recipe.ema_decay else network, recipe, validation)
                        curve.append((done, round(psnr_db, 4)))
                    save(done)
                progress.report(done, mean_loss, recipe.rate(iteration), psnr_db)
    count = max(1, last - first)
    took_s = time.perf_counter() - began
    return Trained(
        checkpoint=run / "checkpoint.safetensors", iteration_s=took_s / count, waiting_s=waiting_s / count
    )


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of the weights; statistics of batches are such already."""
    for averaged, current in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(current, 1 - decay)
    for kept, seen in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(seen)


class RunState:
    """`run/state.pt`: all that the next iteration depends on. Replaced in one step, so always whole.

    The patches need no state: those of an iteration follow from the seed and its number.
    """

    def __init__(self, run: Path, recipe: Recipe, sha256: list[str], processes: int) -> None:
        self.path = run / "state.pt"
        self._identity = json.dumps([recipe.to_dict(), *sha256, processes])

    def load(
        self, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, float, Curve]:
        """The iteration to go on with, seconds spent and curve so far; nought where none was saved."""
        if not self.path.exists():
            return 0, 0.0, []
        state: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
        saved, *others = json.loads(state["identity"])
        # A field that the recipe of an earlier version didn't have is at its default.
        saved = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING} | saved
        if [saved, *others] != json.loads(self._identity):
            raise ValueError(
                f"{self.path} is of another recipe, data, teacher or number of processes: {state['identity']}"
                f" where {self._identity} is asked for; use another run folder"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["iteration"]), float(state["trained_s"]), state.get("curve", [])

    def save(
        self,
        network: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        iteration: int,
        trained_s: float,
        curve: Curve,
    ) -> None:
        state = {
            "identity": self._identity,
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "iteration": iteration,
            "trained_s": trained_s,
            "curve": curve,
        }
        written = io.BytesIO()
        torch.save(state, written)
        replace_file(self.path, written.getvalue())


def measure_iteration(recipe: Recipe, pairs: PackedPairs, teachers: Sequence[Teacher] = ()) -> float:
    """Seconds an iteration takes on this machine, the first few left out; nothing is kept."""
    with tempfile.TemporaryDirectory() as scratch:
        train(recipe, pairs=pairs, run=Path(scratch), teachers=teachers, stop_after=5)
        return train(recipe, pairs=pairs, run=Path(scratch), teachers=teachers, stop_after=30).iteration_s
