"""Figure 6 of the paper: one detail of an image side by side, HR first, each with its PSNR."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data.images import Rgb
from training.data.resize import upscale_bicubic
from training.judge.evaluate import Judged
from training.quality import rgb_to_y, score

PANEL = 256  # pixels, of a panel's longer side at most: the crop is enlarged by a whole factor
CAPTION = 36
GAP = 8
FONT = ImageFont.load_default(13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A part of the HR image, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.x, self.y) < 0 or min(self.width, self.height) < 8:
            raise ValueError(f"crop {self} must lie in the image and be 8×8 or more")

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """x,y,w,h. Raises ValueError."""
        try:
            x, y, width, height = map(int, text.split(","))
        except ValueError as exc:
            raise ValueError(f"crop {text!r} must be four whole numbers: x,y,w,h") from exc
        return cls(x=x, y=y, width=width, height=height)

    def of(self, image: Rgb) -> Rgb:
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def hardest_crop(judged: Judged, scale: int) -> Crop:
    """The place where bicubic is worst, a quarter of the image's shorter side large: there a network has most
    to do."""
    hr = judged.image.hr
    error = (rgb_to_y(upscale_bicubic(judged.image.lr, scale)) - rgb_to_y(hr)) ** 2
    side = max(8, min(error.shape) // 4)
    # Sums over all windows at once, from the integral image.
    integral = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = (
        integral[side:, side:] - integral[:-side, side:] - integral[side:, :-side] + integral[:-side, :-side]
    )
    y, x = np.unravel_index(int(windows.argmax()), windows.shape)
    return Crop(x=int(x), y=int(y), width=side, height=side)


def side_by_side(
    judged: Judged, labels: Sequence[str], scale: int, crop: Crop | None, *, with_bicubic: bool = True
) -> Image.Image:
    """The HR image with the crop framed; then the crop of HR, of bicubic and of each attempt (`labels` names
    them), enlarged without smoothing. The figures are of the whole image. Raises ValueError where the crop
    does not lie in it."""
    hr = judged.image.hr
    height, width = hr.shape[:2]
    crop = crop or hardest_crop(judged, scale)
    if crop.x + crop.width > width or crop.y + crop.height > height:
        raise ValueError(f"crop {crop} must lie within {judged.image.name}, which is {width}×{height}")
    panels = [(f"HR {crop}", judged.image.name, hr)]
    if with_bicubic and "bicubic" not in labels:
        sr = upscale_bicubic(judged.image.lr, scale)
        panels.append(("bicubic", _figures(*score(sr, hr, scale)), sr))
    for label, attempt in zip(labels, judged.attempts, strict=True):
        panels.append((label, _figures(attempt.psnr_db, attempt.ssim), attempt.sr))

    factor = max(1, PANEL // max(crop.width, crop.height))
    panel_width, panel_height = factor * crop.width, factor * crop.height
    whole = _framed(hr, crop, panel_height)
    left = whole.width + GAP
    out = Image.new("RGB", (left + len(panels) * (panel_width + GAP) - GAP, panel_height + CAPTION), "white")
    out.paste(whole, (0, 0))
    draw = ImageDraw.Draw(out)
    for title, figures, image in panels:
        part = Image.fromarray(np.ascontiguousarray(crop.of(image)))
        out.paste(part.resize((panel_width, panel_height), Image.Resampling.NEAREST), (left, 0))
        for line, text in enumerate((title, figures)):
            draw.text((left, panel_height + 2 + 16 * line), _fitting(text, panel_width), "black", FONT)
        left += panel_width + GAP
    return out


def write_crops(
    judged: Judged,
    labels: Sequence[str],
    scale: int,
    crop: Crop | None,
    folder: Path,
    set_name: str,
    *,
    with_bicubic: bool = True,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{set_name}-{judged.image.name}-x{scale}.png"
    side_by_side(judged, labels, scale, crop, with_bicubic=with_bicubic).save(path)
    return path


def _framed(hr: Rgb, crop: Crop, height: int) -> Image.Image:
    """The whole image, so high, with a red frame round the crop."""
    zoom = height / hr.shape[0]
    image = Image.fromarray(hr).resize((round(zoom * hr.shape[1]), height), Image.Resampling.BICUBIC)
    corners = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
    ImageDraw.Draw(image).rectangle([round(zoom * at) for at in corners], outline="red", width=2)
    return image


def _figures(psnr_db: float, ssim: float) -> str:
    return f"{psnr_db:.2f} dB / {ssim:.4f}"


def _fitting(text: str, width: int) -> str:
    """The end of a text that is too long: of a path it says more than the beginning."""
    while FONT.getlength(text) > width and len(text) > 2:
        text = "…" + text[2:]
    return text
