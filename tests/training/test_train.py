"""A short training learns, repeats itself bit by bit, and goes on from where it was killed."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import live_config
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import load_checkpoint
from engine.shipped import shipped_checkpoint
from server.__main__ import main
from tests.conftest import ROOT
from training.data.pairs import DataConfig, PackedPairs, to_network
from training.networks import LoadedNetwork, build_network, load_network, named_config, take_over
from training.recipes import Recipe, paper_recipe, short_recipe
from training.train import train
from training.validate import luma_psnr


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with edges and texture at all scales."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    for index in range(2):
        blocks = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1)))
        noise = rng.normal(0, 6, blocks.shape)
        Image.fromarray((blocks + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> PackedPairs:
    return PackedPairs(DataConfig(folder=photographs, scale=2), tmp_path_factory.mktemp("cache"), lr_patch=16)


def recipe(iterations: int, save_every: int = 5) -> Recipe:
    short = short_recipe(live_config(), iterations)
    return replace(short, batch=4, lr_patch=16, save_every=save_every)


def test_what_normalisation_has_seen_is_kept(pairs: PackedPairs, photographs: Path, tmp_path: Path) -> None:
    """SRResNet's statistics are no parameters: averaged weights without them see all pictures wrong."""
    srresnet = replace(recipe(2), config=named_config("srresnet", 2), batch=1)
    network = load_network(train(srresnet, pairs=pairs, run=tmp_path).checkpoint).network
    before = copy.deepcopy(network.state_dict())
    assert int(before["body.body.0.body.1.num_batches_tracked"]) == 2
    luma_psnr(network.train(), srresnet, photographs)
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoint.safetensors").state


@pytest.mark.parametrize(
    ("loss", "detail", "worse"), [("L1", 0, 0), ("L2", 0, 0), ("PSNR", 0, 0), ("L1", 20, 0.5)]
)
def test_training_learns(
    pairs: PackedPairs,
    photographs: Path,
    tmp_path: Path,
    loss: Literal["L1", "L2", "PSNR"],
    detail: float,
    worse: float,
) -> None:
    begun = replace(recipe(1), loss=loss, detail=detail, lanczos=worse, lr_patch=24)
    train(begun, pairs=pairs, run=tmp_path / "short")
    longer = replace(begun, iterations=60, save_every=60)
    train(longer, pairs=pairs, validation=photographs, run=tmp_path / "longer")
    before, after = (
        luma_psnr(
            load_checkpoint(tmp_path / run / "checkpoint.safetensors").network(), recipe(1), photographs
        )
        for run in ("short", "longer")
    )
    assert after > before + 3
    assert list((tmp_path / "longer" / "tensorboard").iterdir())


def test_a_context_learns_which_pictures_are_compressed(photographs: Path, tmp_path: Path) -> None:
    """And a network that has none is one to begin with."""
    live = DataConfig(folder=photographs, scale=2, degrade="live")
    pairs = PackedPairs(live, tmp_path / "cache", lr_patch=16)
    looking = replace(recipe(80, 80), config=live_config(context=8), collapsible=64)
    begun = load_network(train(recipe(1), pairs=pairs, run=tmp_path / "plain").checkpoint)
    network = load_network(
        train(looking, pairs=pairs, run=tmp_path / "looking", initial=begun).checkpoint
    ).network
    assert isinstance(network, Awsrn)
    with torch.inference_mode():
        told = [network.compressed(to_network(pair.lr[None], "y")).item() for pair in pairs.pairs]
    compressed = [logit for logit, pair in zip(told, pairs.pairs, strict=True) if pair.compressed]
    clean = [logit for logit, pair in zip(told, pairs.pairs, strict=True) if not pair.compressed]
    assert min(compressed) > max(clean)
    with pytest.raises(ValueError, match="batch=1 must be at least 2"):
        replace(looking, batch=1)
    assert network.shift.abs().min() > 0


def test_the_same_seed_gives_the_same_weights(pairs: PackedPairs, tmp_path: Path) -> None:
    for run in ("a", "b"):
        train(recipe(50, 50), pairs=pairs, run=tmp_path / run)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_goes_on_as_if_unbroken(
    pairs: PackedPairs, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = replace(recipe(12), evaluate_every=3)

    def run(name: str) -> LoadedNetwork:
        return load_network(
            train(looking, pairs=pairs, run=tmp_path / name, validation=photographs).checkpoint
        )

    whole = run("whole")
    rate = Recipe.rate

    def killer(self: Recipe, iteration: int) -> float:
        if iteration == 8:
            raise KeyboardInterrupt
        return rate(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "rate", killer)
        with pytest.raises(KeyboardInterrupt):
            run("broken")
    resumed = run("broken")
    kept = resumed.network.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in whole.network.state_dict().items())
    curve = resumed.provenance["validation"]
    assert curve == whole.provenance["validation"]
    assert [iteration for iteration, _ in curve["psnr_db"]] == [3, 6, 9, 12]


def test_a_run_folder_of_another_recipe_is_refused(pairs: PackedPairs, tmp_path: Path) -> None:
    train(recipe(5), pairs=pairs, run=tmp_path)
    with pytest.raises(ValueError, match="is of another recipe"):
        train(recipe(6), pairs=pairs, run=tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(
    pairs: PackedPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipe, "rate", lambda self, iteration: 1e-3 if iteration < 5 else float("nan"))
    with pytest.raises(ValueError, match=r"loss is nan at iteration 10; .*state\.pt"):
        train(recipe(20), pairs=pairs, run=tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").provenance["iteration"] == 5


def test_a_full_disk_is_named_and_leaves_the_last_state(
    pairs: PackedPairs, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe(10), pairs=pairs, run=tmp_path, stop_after=5)
    # The device that is always full stands for the disk.
    (tmp_path / f"state.pt.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*state\.pt"):
        train(recipe(10), pairs=pairs, run=tmp_path)
    train(recipe(10), pairs=pairs, run=tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").provenance["iteration"] == 10

    cache, words = tmp_path / "cache", ["train", "short", "--model", "live", "--iterations", "1"]
    cache.mkdir()
    name = PackedPairs(DataConfig(folder=photographs, scale=2), tmp_path / "probe", lr_patch=48).path.stem
    (cache / f"{name}.{os.getpid()}.partial").symlink_to("/dev/full")
    folders = ["--data", str(photographs), "--out", str(tmp_path / "run"), "--cache", str(cache)]
    assert main([*words, *folders]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_validation_is_looked_at_before_anything_is_packed(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    words = ["train", "short", "--data", str(photographs), "--out", str(tmp_path / "run")]
    for folder, rule in (("none", "none is no folder"), ("broken", "a.png is no readable image")):
        assert main([*words, "--iterations", "1", "--validation", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert "--validation: " in error
        assert rule in error
    assert not (tmp_path / "run").exists()


def test_it_is_said_what_there_is_to_train_and_to_begin_with(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "short", "--data", str(photographs), "--out", str(tmp_path / "run")]
    for model in ("bicubic", "lanczos", "nothing"):
        assert main([*words, "--model", model]) == 2
        error = capsys.readouterr().err
        assert f"--model {model} must be one that is trained: live-tiny, " in error
        assert "lanczos, " not in error
    assert main([*words, "--initial", "awsrn-lvie-x2"]) == 2
    assert "'awsrn-lvie-x2' is neither a path nor one of awsrn" in capsys.readouterr().err
    shipped = ["--model", "live-tiny", "--initial", "awsrn-live-tiny-x2", "--teacher", "awsrn-live-light-x2"]
    assert main([*words, *shipped, "--iterations", "1", "--batch", "2"]) == 0
    made = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").provenance
    begun = load_checkpoint(shipped_checkpoint("awsrn-live-tiny-x2")).provenance
    assert made["began_with"] == begun
    assert [teacher["name"] for teacher in made["teachers"]] == ["awsrn-live-light-x2"]


def test_a_network_begins_with_the_weights_that_fit(pairs: PackedPairs, tmp_path: Path) -> None:
    train(recipe(5), pairs=pairs, run=tmp_path / "narrow")
    narrow = load_network(tmp_path / "narrow" / "checkpoint.safetensors")
    wide = build_network(replace(live_config(), kernels=(3, 5, 7)))
    fresh = take_over(wide, narrow.network)
    assert fresh
    assert all(".k7" in name for name in fresh)
    assert torch.equal(wide.state_dict()["tail.alphas.k5"], narrow.network.state_dict()["tail.alphas.k5"])
    larger = build_network(live_config(scale=4))
    assert {name.split(".")[0] for name in take_over(larger, narrow.network)} == {"tail", "skip"}
    with pytest.raises(ValueError, match="none in common"):
        take_over(build_network(named_config("vdsr", 2)), narrow.network)


def test_the_papers_schedule() -> None:
    paper = paper_recipe(live_config())
    assert [paper.rate(i) for i in (0, 199_999, 200_000, 600_000)] == [1e-3, 1e-3, 5e-4, 1.25e-4]
    assert (paper.batch, paper.lr_patch, paper.iterations) == (16, 48, 1_000_000)


def test_two_processes_train_one_network(photographs: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "server", "train", "short", "--model", "live", "--iterations", "3", "--batch", "2",
        "--data", str(photographs), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").provenance["iteration"] == 3
