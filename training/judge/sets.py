"""Benchmark sets on disk: which HR and LR files belong together, in the layouts that sets are shared in.

HR/baby.png  LR_bicubic/X2/babyx2.png            EDSR and those who took over its loader
GTmod12/baby.png  LRbicx2/baby.png               BasicSR
image_SRF_2/img_001_SRF_2_HR.png  …_LR.png       SelfExSR, where Urban100 comes from
baby.png                                         a plain folder: LR is made here
"""

import re
from dataclasses import dataclass
from pathlib import Path

from training.data.images import Rgb, hr_folder, image_files, read_rgb
from training.data.resize import crop_to_multiple, downscale

# What layouts append to an image's name: x2, _SRF_2, _HR, _LRBI …
_MARKS = re.compile(r"(?<=.)(?:[_-]?x\d|[_-](?:HR|LR|LRBI|SRF_\d))$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFolder:
    """A set as the user names it. `lr`: its LR images, each of which must be there; None: those of the set's
    own layout, or none."""

    name: str
    hr: Path
    lr: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFile:
    """`lr` is None where no LR image is given."""

    name: str
    hr: Path
    lr: Path | None
    lr_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetImage:
    """lr (h, w, 3) and hr (s·h, s·w, 3), uint8 RGB, grey repeated. `lr_given`: LR was read, not made."""

    name: str
    lr: Rgb
    hr: Rgb
    lr_given: bool


def find(folder: SetFolder, scale: int) -> list[SetFile]:
    """The set's images by name. Raises ValueError naming the folder without images, two files of one name, or
    the HR image whose LR is missing from a folder that was asked for."""
    if folder.lr is not None:
        hr_files, lr_files = _by_name(image_files(folder.hr)), _by_name(image_files(folder.lr))
        for name, hr in hr_files.items():
            if name not in lr_files:
                raise ValueError(f"{hr} has no LR image in {folder.lr}")
    else:
        hr_files, lr_files = _layout(folder.hr, scale)
    return [
        SetFile(name=name, hr=hr, lr=lr_files.get(name), lr_required=folder.lr is not None)
        for name, hr in hr_files.items()
    ]


def load(file: SetFile, scale: int) -> SetImage:
    """HR is cropped to a multiple of `scale`; LR is the given one if it has the size that follows, else made
    by MATLAB's bicubic. Raises ValueError naming an unreadable file, or a required LR of another size."""
    picture = read_rgb(file.hr)
    hr = crop_to_multiple(picture, scale)
    if min(hr.shape[:2]) < 11 + 2 * scale:
        size = f"{picture.shape[1]}×{picture.shape[0]}"
        raise ValueError(f"{file.hr} is {size}, too small for SSIM's 11×11 window within the border")
    if file.lr is not None:
        lr = read_rgb(file.lr)
        if lr.shape[0] * scale == hr.shape[0] and lr.shape[1] * scale == hr.shape[1]:
            return SetImage(name=file.name, lr=lr, hr=hr, lr_given=True)
        if file.lr_required:
            sizes = f"{lr.shape[1]}×{lr.shape[0]}, must be {hr.shape[1] // scale}×{hr.shape[0] // scale}"
            raise ValueError(f"{file.lr} is {sizes}: a ×{scale} smaller {file.hr}")
    return SetImage(name=file.name, lr=downscale(hr, scale), hr=hr, lr_given=False)


def _layout(folder: Path, scale: int) -> tuple[dict[str, Path], dict[str, Path]]:
    mixed = folder / f"image_SRF_{scale}"
    if mixed.is_dir():
        files = image_files(mixed)
        hr, lr = ([f for f in files if f.stem.upper().endswith(end)] for end in ("_HR", "_LR"))
        if not hr:
            raise ValueError(f"{mixed} holds no image whose name ends in _HR")
        return _by_name(hr), _by_name(lr)
    hr_dir = folder / "GTmod12" if (folder / "GTmod12").is_dir() else hr_folder(folder)
    lr_dirs = (folder / "LR_bicubic" / f"X{scale}", folder / f"LRbicx{scale}")
    lr_dir = next((path for path in lr_dirs if path.is_dir()), None)
    return _by_name(image_files(hr_dir)), _by_name(image_files(lr_dir)) if lr_dir else {}


def _by_name(files: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = file.stem
        while _MARKS.search(name):
            name = _MARKS.sub("", name)
        if name in found:
            raise ValueError(f"{file} and {found[name]} are both named {name!r}")
        found[name] = file
    return found
