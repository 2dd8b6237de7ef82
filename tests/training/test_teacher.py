"""A network learns from larger ones what they know better, and from none of another kind."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.config import live_config
from server.__main__ import main
from training.losses import Loss
from training.networks import NetworkConfig, build_network, load_network, save_network
from training.recipes import short_recipe


def checkpoint(path: Path, config: NetworkConfig) -> Path:
    save_network(path, build_network(config), config, {"name": path.stem})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture to train on, and teachers."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "hr").mkdir()
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(noise).save(folder / "hr" / "noise.png")
    torch.manual_seed(1)
    checkpoint(folder / "one.safetensors", live_config())
    checkpoint(folder / "two.safetensors", live_config())
    checkpoint(folder / "x4.safetensors", live_config(scale=4))
    checkpoint(folder / "rgb.safetensors", replace(live_config(), colour="rgb"))
    return folder


def train(folder: Path, out: str, *words: str) -> int:
    data = ["--data", str(folder / "hr"), "--cache", str(folder / "cache"), "--out", str(folder / out)]
    return main(
        ["train", "short", "--model", "live-tiny", "--iterations", "1", "--batch", "1", *data, *words]
    )


@pytest.mark.parametrize("loss", ["L1", "L2", "PSNR"])
def test_a_patch_learns_from_the_nearest_teacher_and_from_none_that_is_further(loss: str) -> None:
    """Of three patches one teacher is nearest on the first, the other on the second, the network on the
    third. Only where the output is moves it: towards the original where there is nothing better to learn."""
    hr = torch.full((3, 1, 4, 4), 100.0)

    def off_by(*levels: float) -> Tensor:
        return hr + torch.tensor(levels).view(3, 1, 1, 1)

    def gradient(weight: float) -> list[float]:
        recipe = replace(short_recipe(live_config()), loss=loss, teacher=weight)
        sr = off_by(8, 8, 8).requires_grad_()
        taught = [off_by(4, -6, 9), off_by(7, -2, -20)] if weight else []
        Loss(recipe)(sr, hr, hr, taught).backward()
        assert sr.grad is not None
        return [float(patch.sum()) for patch in sr.grad]

    def towards(distance: float) -> float:
        sr = torch.full((1, 1, 4, 4), distance, requires_grad=True)
        recipe = replace(short_recipe(live_config()), loss=loss)
        Loss(recipe)(sr, torch.zeros(1, 1, 4, 4), sr.detach()).backward()
        assert sr.grad is not None
        return float(sr.grad.sum()) / 3

    alone, with_teachers = gradient(0), gradient(0.5)
    learnt = [a - b for a, b in zip(with_teachers, alone, strict=True)]
    assert learnt == pytest.approx([0.5 * towards(8.0 - 4.0), 0.5 * towards(8.0 + 2.0), 0], abs=1e-5)


def test_the_checkpoint_says_who_taught_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    assert train(folder, "run", "--bf16", "--teacher", str(one), "--teacher-weight", "0.5") == 0
    made_by = load_network(folder / "run" / "checkpoint.safetensors").provenance
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert made_by["teachers"] == [{"name": "one", "sha256": digest}]
    assert made_by["recipe"]["teacher"] == 0.5
    # What the teacher says is part of the run: it can't go on with another.
    assert train(folder, "run", "--bf16", "--teacher", str(two), "--teacher-weight", "0.5") == 2
    assert "is of another recipe, data, teacher" in capsys.readouterr().err


@pytest.mark.parametrize(("teacher", "kind"), [("x4", "×4 in y"), ("rgb", "×2 in rgb")])
def test_a_teacher_of_another_kind_is_refused(
    folder: Path, teacher: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / f"{teacher}.safetensors"
    assert train(folder, "refused", "--teacher", str(path)) == 2
    assert f"--teacher {path} is {kind}, must be ×2 in y" in capsys.readouterr().err


def test_a_weight_without_a_teacher_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "refused", "--teacher-weight", "2") == 2
    assert "--teacher-weight 2.0 needs a --teacher" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_goes_on(folder: Path) -> None:
    """Its recipe lacks what is new; that is at its default."""
    assert train(folder, "earlier") == 0
    path = folder / "earlier" / "state.pt"
    state = torch.load(path, weights_only=True)
    recipe, *others = json.loads(state["identity"])
    del recipe["teacher"]
    torch.save(state | {"identity": json.dumps([recipe, *others])}, path)
    assert train(folder, "earlier") == 0
