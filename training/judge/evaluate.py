"""Judges upscalers on sets of HR images by the paper's protocol."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.images import Rgb
from training.judge.sets import SetFolder, SetImage, find, load
from training.quality import score

Upscaler = Callable[[Rgb], Rgb]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Means over a set's images: PSNR-Y in dB and SSIM-Y."""

    images: int
    psnr_db: float
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one upscaler made of one image."""

    sr: Rgb
    psnr_db: float
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One image, and what each upscaler made of it, in the order of the upscalers."""

    image: SetImage
    attempts: tuple[Attempt, ...]


def judge(upscalers: Sequence[Upscaler], scale: int, images: Iterable[SetImage]) -> Iterator[Judged]:
    """Image by image, so that no more than one is in memory."""
    for image in images:
        attempts = []
        for upscale in upscalers:
            sr = upscale(image.lr)
            psnr_db, ssim = score(sr, image.hr, scale)
            attempts.append(Attempt(sr=sr, psnr_db=psnr_db, ssim=ssim))
        yield Judged(image=image, attempts=tuple(attempts))


def mean(attempts: Sequence[tuple[float, float]]) -> Result:
    """Mean of the images' (PSNR, SSIM)."""
    psnr_db, ssim = np.mean(attempts, axis=0)
    return Result(images=len(attempts), psnr_db=float(psnr_db), ssim=float(ssim))


def evaluate(upscale: Upscaler, scale: int, folder: Path) -> Result:
    """Scores one 8-bit RGB upscaler on a set in any of the layouts that `training.judge.sets` knows."""
    return evaluate_set(upscale, scale, SetFolder(name=folder.name, hr=folder))


def evaluate_set(upscale: Upscaler, scale: int, folder: SetFolder) -> Result:
    """Scores one 8-bit RGB upscaler on a set, on LR images of the set's own where `folder` names them."""
    judged = judge([upscale], scale, (load(file, scale) for file in find(folder, scale)))
    return mean([(one.attempts[0].psnr_db, one.attempts[0].ssim) for one in judged])
