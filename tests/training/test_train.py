"""A short training learns, repeats itself bit by bit, and goes on from where it was killed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.checkpoint import load_checkpoint
from engine.config import live_config
from training.data import PackedPairs
from training.train import Recipe, luma_psnr, train


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two images with edges and texture at all scales."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(2):
        blocks = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1)))
        noise = rng.normal(0, 6, blocks.shape)
        Image.fromarray((blocks + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def recipe(iterations: int, save_every: int = 5) -> Recipe:
    return Recipe(config=live_config(), iterations=iterations, batch=4, lr_patch=16, save_every=save_every)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint).state


def test_training_learns(photographs: Path, tmp_path: Path) -> None:
    short = train(recipe(1), data=photographs, validation=None, run=tmp_path / "short")
    longer = train(recipe(60, 60), data=photographs, validation=photographs, run=tmp_path / "longer")
    untrained = luma_psnr(load_checkpoint(short).network(), photographs)
    assert luma_psnr(load_checkpoint(longer).network(), photographs) > untrained + 3


def test_the_same_seed_gives_the_same_weights(photographs: Path, tmp_path: Path) -> None:
    first = weights(train(recipe(10), data=photographs, validation=None, run=tmp_path / "a"))
    second = weights(train(recipe(10), data=photographs, validation=None, run=tmp_path / "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_goes_on_as_if_unbroken(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train(recipe(12), data=photographs, validation=None, run=tmp_path / "whole"))
    killed_at = 8
    rate = Recipe.rate

    def killer(self: Recipe, iteration: int) -> float:
        if iteration == killed_at:
            raise KeyboardInterrupt
        return rate(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "rate", killer)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(12), data=photographs, validation=None, run=tmp_path / "broken")
    resumed = weights(train(recipe(12), data=photographs, validation=None, run=tmp_path / "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_folder_of_another_recipe_is_refused(photographs: Path, tmp_path: Path) -> None:
    train(recipe(5), data=photographs, validation=None, run=tmp_path / "run")
    with pytest.raises(ValueError, match="is of another recipe"):
        train(recipe(6), data=photographs, validation=None, run=tmp_path / "run")


def test_bad_folders_and_files_are_named(tmp_path: Path) -> None:
    def pack(folder: Path) -> PackedPairs:
        return PackedPairs(folder, 2, tmp_path / "cache", min_side=96)

    with pytest.raises(ValueError, match="none is no folder"):
        pack(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no image"):
        pack(tmp_path / "empty")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "x.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"x\.png is no readable image"):
        pack(broken)
    Image.new("RGB", (50, 120)).save(broken / "x.png")
    with pytest.raises(ValueError, match=r"x\.png is 50×120, smaller than the 96×96 crop"):
        pack(broken)
