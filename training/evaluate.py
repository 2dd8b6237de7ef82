"""Judges an upscaler on a folder of HR images by the paper's protocol."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import image_files, read_rgb
from training.quality import score
from training.resize import crop_to_multiple, downscale

Upscaler = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Means over a set's images: PSNR-Y in dB and SSIM-Y."""

    images: int
    psnr_db: float
    ssim: float


def hr_folder(folder: Path) -> Path:
    """Where a set keeps its HR images: in itself, or in its subfolder HR."""
    return folder / "HR" if (folder / "HR").is_dir() else folder


def evaluate(upscale: Upscaler, scale: int, folder: Path) -> Result:
    """Scores an 8-bit RGB upscaler on a set; LR is made from HR by MATLAB's bicubic."""
    scores = []
    for file in image_files(hr_folder(folder)):
        hr = crop_to_multiple(read_rgb(file), scale)
        scores.append(score(upscale(downscale(hr, scale)), hr, scale))
    psnr_db, ssim = np.mean(scores, axis=0)
    return Result(images=len(scores), psnr_db=float(psnr_db), ssim=float(ssim))
