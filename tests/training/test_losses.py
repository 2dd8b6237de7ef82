"""What training makes small orders results as viewers do, and leaves alone what is good already."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from engine.config import live_config
from training.losses import LostDetail, WorseThanLanczos, negative_psnr
from training.networks.enlarge import lanczos
from training.quality import psnr
from training.recipes import Recipe


@pytest.fixture
def original() -> Tensor:
    """Luma with edges, fine and coarse texture, (2, 1, 96, 96)."""
    generator = torch.Generator().manual_seed(0)
    coarse = interpolate(100 + 80 * torch.rand(2, 1, 8, 8, generator=generator), 96, mode="bicubic")
    fine = 12 * torch.randn(2, 1, 96, 96, generator=generator)
    return (coarse + avg_pool2d(fine, 3, stride=1, padding=1)).clamp(16, 235)


def blurred(x: Tensor, reach: int) -> Tensor:
    return avg_pool2d(x, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)


def test_lost_detail_orders_results_as_viewers_do(original: Tensor) -> None:
    lost = LostDetail()
    noise = 10 * torch.randn(original.shape, generator=torch.Generator().manual_seed(1))
    same, softer, softest, noisy = (
        float(lost(sr, original))
        for sr in (original, blurred(original, 1), blurred(original, 2), original + noise)
    )
    assert same == pytest.approx(0, abs=0.01)
    assert 0.05 < softer < softest
    assert noisy > 0.05


def test_lost_detail_does_not_reward_contrast_that_was_not_there(original: Tensor) -> None:
    lost, mean = LostDetail(), blurred(original, 8)
    assert float(lost(mean + 1.3 * (original - mean), original)) >= float(lost(original, original))


def test_the_gradient_of_lost_detail_brings_it_back(original: Tensor) -> None:
    lost = LostDetail()
    sr = blurred(original, 1).requires_grad_()
    before = lost(sr, original)
    before.backward()
    assert sr.grad is not None
    with torch.no_grad():
        better = sr - sr.grad / sr.grad.abs().max()
    assert float(lost(better, original)) < float(before.detach())
    flat = torch.full((1, 1, 48, 48), 128.0, requires_grad=True)
    lost(flat, torch.full((1, 1, 48, 48), 128.0)).backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all()), "a flat patch must not end a run"


def test_worse_than_lanczos_counts_only_where_lanczos_is_closer(original: Tensor) -> None:
    worse, lr = WorseThanLanczos(2), avg_pool2d(original, 2)
    plain = lanczos(2)(lr)
    assert float(worse(plain, original, lr)) == pytest.approx(0.1, abs=1e-4)
    assert float(worse((plain + original) / 2, original, lr)) == 0
    off = (plain + original) / 2
    off[1] = plain[1]
    off[1] += plain[1] - original[1]  # twice the error: 6 dB in one of two patches
    off.requires_grad_()
    lost = worse(off, original, lr)
    lost.backward()
    assert float(lost.detach()) == pytest.approx(3.05, abs=0.1)
    assert off.grad is not None
    assert not bool(off.grad[0].any())
    assert bool(off.grad[1].any())


def test_psnr_of_patches_is_the_judges(original: Tensor) -> None:
    sr = original + torch.tensor([20.0, 40.0]).view(2, 1, 1, 1)
    judged = [psnr(a.double().numpy(), b.double().numpy()) for a, b in zip(sr, original, strict=True)]
    assert float(negative_psnr(sr, original).mean()) == pytest.approx(-np.mean(judged), abs=0.02)
    assert torch.isfinite(negative_psnr(original, original)).all()


@pytest.mark.parametrize("name", ["detail", "lanczos"])
def test_a_negative_weight_is_refused(name: str) -> None:
    recipe = Recipe(config=live_config())
    with pytest.raises(ValueError, match=rf"{name}=-1 must be zero or more"):
        replace(recipe, **{name: -1})
