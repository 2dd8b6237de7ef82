"""LR and figures are the benchmarks' own: MATLAB's LR images pixel by pixel, bicubic's published decibels."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.conftest import shared
from training.evaluate import evaluate
from training.quality import psnr, rgb_to_y, score, ssim
from training.resize import crop_to_multiple, downscale, upscale_bicubic


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
    ],
)
def test_bicubic_has_its_known_figures(name: str, scale: int, psnr_db: float, ssim_y: float) -> None:
    result = evaluate(partial(upscale_bicubic, scale=scale), scale, shared(f"data/{name}"))
    assert result.psnr_db == pytest.approx(psnr_db, abs=0.005)
    assert result.ssim == pytest.approx(ssim_y, abs=0.0003)


def test_psnr_and_ssim_of_known_images() -> None:
    image = np.random.default_rng(0).integers(0, 250, (24, 32, 3), dtype=np.uint8)
    luma = rgb_to_y(image)
    assert psnr(luma, luma) == float("inf")
    assert ssim(luma, luma) == pytest.approx(1.0)
    assert psnr(luma, luma + 1) == pytest.approx(48.13, abs=0.01)
    assert rgb_to_y(np.array([[0, 0, 0], [255, 255, 255]], np.uint8)) == pytest.approx([16.0, 235.0])


def test_a_size_the_scale_does_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match=r"7×4 must be a multiple of scale=2"):
        downscale(np.zeros((4, 7, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"sr\.shape"):
        score(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8), 2)
