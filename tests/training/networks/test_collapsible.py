"""A collapsible network is the plain one of the same configuration: same function, same file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import live_config
from engine.network.checkpoint import load_checkpoint
from training.data.pairs import DataConfig, PackedPairs
from training.networks import build_network, collapse, named_config, widen
from training.recipes import Recipe
from training.train import train

CONFIG = live_config(features=4, block_features=8, awrus=1)


def test_widening_and_collapsing_keep_the_function() -> None:
    torch.manual_seed(0)
    plain = build_network(CONFIG)
    x = 255 * torch.rand(1, 1, 12, 14)
    before = plain(x)
    wide = widen(plain, 32)
    assert sum(p.numel() for p in wide.parameters()) > 3 * CONFIG.parameters
    torch.testing.assert_close(wide(x), before, atol=1e-3, rtol=0)
    torch.testing.assert_close(collapse(wide, build_network(CONFIG))(x), before, atol=1e-3, rtol=0)


def test_a_width_below_the_output_channels_is_named() -> None:
    with pytest.raises(ValueError, match=r"collapsible width=4 must be at least 8"):
        widen(build_network(CONFIG), 4)
    with pytest.raises(ValueError, match="Espcn has none"):
        widen(build_network(named_config("espcn", 2)), 32)


def test_a_collapsible_run_resumes_and_leaves_an_ordinary_checkpoint(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "hr").mkdir()
    Image.fromarray(pixels).save(tmp_path / "hr" / "a.png")
    pairs = PackedPairs(DataConfig(folder=tmp_path / "hr", scale=2), tmp_path / "cache", lr_patch=16)
    recipe = Recipe(
        config=CONFIG, iterations=6, batch=2, lr_patch=16, ema_decay=0.9, collapsible=16, gradient_norm=5.0
    )
    straight = train(recipe, pairs=pairs, run=tmp_path / "straight")
    train(recipe, pairs=pairs, run=tmp_path / "resumed", stop_after=3)
    resumed = train(recipe, pairs=pairs, run=tmp_path / "resumed")
    states = [load_checkpoint(done.checkpoint).state for done in (straight, resumed)]
    assert states[0].keys() == build_network(CONFIG).state_dict().keys()
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name
