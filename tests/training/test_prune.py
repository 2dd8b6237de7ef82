"""Pruning removes the branches that the rule names, and what is left is the same network without them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import AwsrnConfig
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import load_checkpoint, save_checkpoint
from server.__main__ import main
from training.networks import load_network, without_branches
from training.prune import Branch, Rule, measure_branches

CONFIG = AwsrnConfig(scale=2, lfbs=1, awrus=1, features=4, block_features=8, colour="y")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A network whose 9×9 branch has no weight, so that removing it must cost nothing."""
    torch.manual_seed(0)
    network = Awsrn(CONFIG)
    with torch.no_grad():
        network.tail.alphas["k9"].fill_(0.0)
    save_checkpoint(tmp_path / "full.safetensors", network, {})
    return tmp_path / "full.safetensors"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photographs").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((128, 128)).save(tmp_path / "photographs" / "a.png")
    return tmp_path / "photographs"


def test_a_branch_without_weight_costs_nothing(trained: Path, photographs: Path) -> None:
    whole = load_network(trained)
    _, branches = measure_branches(whole, photographs)
    costs = {b.kernel: b.cost_db for b in branches}
    assert abs(costs[9]) < 1e-4
    assert abs(costs[3]) > 1e-3
    x = torch.rand(1, 1, 20, 20) * 255
    pruned = without_branches(whole, {9})
    with torch.inference_mode():
        assert torch.allclose(pruned.network(x), whole.network(x), atol=1e-3)


def test_rules() -> None:
    branch = Branch(kernel=7, alpha=-0.02, cost_db=0.003)
    assert Rule(kernels=(7,)).removes(branch)
    assert Rule(alpha_below=0.05).removes(branch)
    assert Rule(cost_below_db=0.01).removes(branch)
    assert not Rule(alpha_below=0.01, cost_below_db=0.001).removes(branch)


def test_the_command_prunes_and_fine_tunes(
    trained: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = str(photographs), tmp_path / "run"
    words = ["prune", str(trained), "--remove", "7,9", "--data", folder, "--validation", folder]
    assert main([*words, "--out", str(run), "--iterations", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["removed"] == [7, 9]
    assert report["after"]["parameters"] < report["before"]["parameters"]
    assert report["after"]["merged_mult_adds"] < report["before"]["merged_mult_adds"]
    assert load_checkpoint(run / "checkpoint.safetensors").config.kernels == (3, 5)
