"""LR and figures are the benchmarks' own: MATLAB's LR images pixel by pixel, bicubic's published decibels."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.conftest import shared
from training.data.resize import crop_to_multiple, downscale, upscale_bicubic
from training.judge.evaluate import evaluate
from training.quality import FloatImage, flicker, psnr, rgb_to_y, score, ssim


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_is_matlabs_pixel_by_pixel(scale: int) -> None:
    hr_folder, lr_folder = shared("data/Set5/HR"), shared(f"data/Set5/LR_bicubic/X{scale}")
    for file in sorted(hr_folder.glob("*.png")):
        lr = np.asarray(Image.open(lr_folder / f"{file.stem}x{scale}.png"))
        hr = crop_to_multiple(np.asarray(Image.open(file)), scale)
        assert np.array_equal(downscale(hr, scale), lr), file.name


@pytest.mark.parametrize(
    ("name", "scale", "psnr_db", "ssim_y"),
    [
        ("Set5", 2, 33.673, 0.9303),
        ("Set5", 3, 30.403, 0.8689),
        ("Set5", 4, 28.429, 0.8111),
        ("Set5", 8, 24.397, 0.6581),
        # One of Set14's images is grey.
        ("Set14", 2, 30.33, None),
        ("Set14", 3, 27.63, None),
        ("Set14", 4, 26.09, None),
        ("Set14", 8, 23.18, None),
    ],
)
def test_bicubic_has_its_published_figures(
    name: str, scale: int, psnr_db: float, ssim_y: float | None
) -> None:
    result = evaluate(partial(upscale_bicubic, scale=scale), scale, shared(f"data/{name}"))
    assert result.images == {"Set5": 5, "Set14": 14}[name]
    assert result.psnr_db == pytest.approx(psnr_db, abs=0.01)
    if ssim_y is not None:
        assert result.ssim == pytest.approx(ssim_y, abs=0.0003)


def test_psnr_and_ssim_of_known_images() -> None:
    image = np.random.default_rng(0).integers(0, 250, (24, 32, 3), dtype=np.uint8)
    luma = rgb_to_y(image)
    assert psnr(luma, luma) == float("inf")
    assert ssim(luma, luma) == pytest.approx(1.0)
    assert psnr(luma, luma + 1) == pytest.approx(48.13, abs=0.01)
    assert rgb_to_y(np.array([[0, 0, 0], [255, 255, 255]], np.uint8)) == pytest.approx([16.0, 235.0])


def test_ssim_is_its_definition_in_an_image_of_many_strips() -> None:
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 255, (83, 29))
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255)
    assert ssim(a, b) == pytest.approx(ssim_by_definition(a, b), abs=1e-12)


def ssim_by_definition(a: FloatImage, b: FloatImage) -> float:
    """Wang et al. 2004, equations 13 to 16, window by window."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_p * mean_q + c1)
                * (2 * covariance + c2)
                / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
            )
    return float(np.mean(values))


def test_flicker_sees_change_that_the_original_does_not_have() -> None:
    hr = np.random.default_rng(2).uniform(0, 255, (20, 30))
    moved = np.roll(hr, 1, axis=1)
    assert flicker(hr, hr, hr, hr) == 0
    # Blurred or too dark, but steadily so.
    assert flicker(moved - 20, hr - 20, moved, hr) == pytest.approx(0)
    # A still scene that goes up and down by 3 levels.
    assert flicker(hr + 3, hr, hr, hr) == pytest.approx(3)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"7×4 must be a multiple of scale=2"):
        downscale(np.zeros((4, 7, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"sr\.shape"):
        score(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"12×10 is smaller than SSIM's 11×11 window"):
        ssim(np.zeros((10, 12)), np.zeros((10, 12)))
