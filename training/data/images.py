"""Reading pictures as 8-bit RGB: image folders, DIV2K's layout, frames of videos, any mode."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
# libswscale's usual, faster way makes every pixel darker by one level.
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".y4m"}


def read_rgb(path: Path) -> Rgb:
    """(H, W, 3) uint8. Grey is repeated, alpha is dropped, CMYK converted, 16 bits scaled to 8.

    Raises ValueError naming a file that is no image.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
                wide = np.asarray(image).astype(np.uint32)
                grey = ((wide * 255 + 32_767) // 65_535).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as exc:  # as Pillow sees damage
        raise ValueError(f"{path} is no readable image: {exc}") from exc


def hr_folder(folder: Path) -> Path:
    """Folder in which a set keeps its HR images: in itself, in HR, or in DIV2K's DIV2K_train_HR."""
    for name in ("HR", "DIV2K_train_HR"):
        if (folder / name).is_dir():
            return folder / name
    return folder


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name. Raises ValueError where there is none."""
    return _files(folder, IMAGE_SUFFIXES, "image")


def media_files(folder: Path) -> list[Path]:
    """The images and videos in a folder, by name. Raises ValueError where there is neither."""
    return _files(folder, IMAGE_SUFFIXES | VIDEO_SUFFIXES, "image or video")


def _files(folder: Path, suffixes: set[str], what: str) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"{folder} holds no {what} ({', '.join(sorted(suffixes))})")
    return files


def rgb_of(frame: av.VideoFrame) -> Rgb:
    """(H, W, 3) uint8, by the matrix that the frame names, BT.601 where it names none."""
    rgb = frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
    return rgb.astype(np.uint8, copy=False)


def read_frames(path: Path, *, every_s: float) -> Iterator[Rgb]:
    """Frames of a video as RGB, one in `every_s` seconds. Raises ValueError naming what is no video."""
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            due_s = 0.0
            for frame in container.decode(stream):
                if frame.time is None or frame.time >= due_s:
                    due_s = (frame.time or 0.0) + every_s
                    yield rgb_of(frame)
    except (av.error.FFmpegError, IndexError) as exc:
        raise ValueError(f"{path} is no readable video: {exc}") from exc
