"""Training patches: HR pictures of a folder, their LR, random crops of both.

The decoded pictures are packed into one memory-mapped file, so that later runs start at once and crops
come from the page cache.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.files import replace_file
from training.data.degrade import Compression, degrade_live, degrade_still, seen
from training.data.images import VIDEO_SUFFIXES, hr_folder, media_files, read_frames, read_rgb
from training.data.resize import Rgb, crop_to_multiple, downscale
from training.quality import rgb_to_y

Degradation = Literal["bicubic", "h264", "live"]
# How often a picture is compressed, each time otherwise: no texture is to be known at one quality only.
COMPRESSIONS = 3
AROUND = 160  # LR pixels on either side, of what a network with a context sees around a patch
PACKING = 4  # part of the cache's key: raised when the same files are packed otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Origin of HR and LR. `lr_folder` holds LR images that somebody else made (DIV2K's names)."""

    folder: Path
    scale: int
    degrade: Degradation = "bicubic"
    lr_folder: Path | None = None
    frame_every_s: float = 1.0  # of videos
    seed: int = 0

    def __post_init__(self) -> None:
        if self.degrade not in get_args(Degradation):
            raise ValueError(f"degrade={self.degrade!r} must be one of {', '.join(get_args(Degradation))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One picture twice, uint8 RGB: lr (h, w, 3) and hr (s·h, s·w, 3)."""

    lr: Rgb
    hr: Rgb
    compressed: bool = False


def _pictures(config: DataConfig) -> Iterator[tuple[Path, Rgb]]:
    for file in media_files(hr_folder(config.folder)):
        if file.suffix.lower() in VIDEO_SUFFIXES:
            for frame in read_frames(file, every_s=config.frame_every_s):
                yield file, frame
        else:
            yield file, read_rgb(file)


def read_pairs(config: DataConfig, *, lr_patch: int) -> Iterator[Pair]:
    """Every picture of the folder with its LR. Raises ValueError naming the file that does not fit."""
    scale, rng = config.scale, np.random.default_rng(config.seed)
    for file, picture in _pictures(config):
        hr = crop_to_multiple(picture, scale)
        # The pan of a degraded still takes some pixels off, and 4:2:0 one more.
        needed = scale * (lr_patch + (0 if config.degrade == "bicubic" else 5))
        if min(hr.shape[:2]) < needed:
            size = f"{picture.shape[1]}×{picture.shape[0]}"
            raise ValueError(f"{file} is {size}, smaller than {needed}×{needed}, which the crop needs")
        lr = _given_lr(config, file, hr) if config.lr_folder else downscale(hr, scale)
        match config.degrade:
            case "bicubic":
                yield Pair(lr=lr, hr=hr)
            case "h264":
                for _ in range(COMPRESSIONS):
                    coded, y, x = degrade_still(lr, [Compression.draw(rng)], rng)
                    yield Pair(lr=coded, hr=seen(hr, scale, coded, y, x))
            case "live":  # once clean: one model is to serve clean and compressed sources
                yield Pair(lr=lr, hr=hr)
                for _ in range(COMPRESSIONS - 1):
                    coded, of_it = degrade_live(hr, scale, rng)
                    yield Pair(lr=coded, hr=of_it)


def _compressed(degrade: Degradation, number: int) -> bool:
    """Whether the LR of this number is, in the order of `read_pairs`."""
    return degrade == "h264" or (degrade == "live" and number % COMPRESSIONS > 0)


def _given_lr(config: DataConfig, file: Path, hr: Rgb) -> Rgb:
    assert config.lr_folder is not None
    for name in (f"{file.stem}x{config.scale}{file.suffix}", file.name):
        path = config.lr_folder / name
        if path.exists():
            lr = read_rgb(path)
            if tuple(side * config.scale for side in lr.shape[:2]) != hr.shape[:2]:
                raise ValueError(
                    f"{path} is {lr.shape[1]}×{lr.shape[0]}, ×{config.scale} of it must be"
                    f" {hr.shape[1]}×{hr.shape[0]} as {file} is"
                )
            return lr
    raise ValueError(f"{config.lr_folder} holds no LR of {file.name}")


class PackedPairs:
    """All pairs of a data configuration in one memory-mapped file; `sha256` is of the pixels."""

    def __init__(self, config: DataConfig, cache: Path, *, lr_patch: int) -> None:
        files = media_files(hr_folder(config.folder))
        identity = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        about = [identity, str(config), lr_patch, PACKING]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        self.path, index_path = cache / f"{key}.u8", cache / f"{key}.json"
        if not index_path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            self._pack(config, lr_patch, index_path)
        index = json.loads(index_path.read_text())
        self.name = config.folder.name
        self.sha256: str = index["sha256"]
        self.scale = config.scale
        data = np.memmap(self.path, dtype=np.uint8, mode="r")
        self.pairs: list[Pair] = []
        for number, (offset, h, w) in enumerate(index["images"]):
            middle = offset + 3 * h * w
            end = middle + 3 * h * w * self.scale**2
            lr = data[offset:middle].reshape(h, w, 3)
            hr = data[middle:end].reshape(h * self.scale, w * self.scale, 3)
            self.pairs.append(Pair(lr=lr, hr=hr, compressed=_compressed(config.degrade, number)))

    def _pack(self, config: DataConfig, lr_patch: int, index_path: Path) -> None:
        images: list[tuple[int, int, int]] = []
        digest = hashlib.sha256()
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        offset = 0
        try:
            with partial.open("wb") as out:
                for pair in read_pairs(config, lr_patch=lr_patch):
                    for part in (pair.lr, pair.hr):
                        pixels = np.ascontiguousarray(part).tobytes()
                        out.write(pixels)
                        digest.update(pixels)
                    images.append((offset, pair.lr.shape[0], pair.lr.shape[1]))
                    offset += pair.lr.size + pair.hr.size
            os.replace(partial, self.path)
        except OSError as exc:
            # What a full disk raises from a write names no file.
            raise OSError(exc.errno, exc.strerror, exc.filename or str(partial)) from exc
        finally:
            partial.unlink(missing_ok=True)
        text = json.dumps({"images": images, "sha256": digest.hexdigest()})
        replace_file(index_path, text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """A batch, uint8 RGB: lr (B, p, p, 3), hr (B, s·p, s·p, 3), which LR is compressed, (B), and where it is
    asked for, a larger part of each LR picture with the patch in it, (B, AROUND, AROUND, 3)."""

    lr: Rgb
    hr: Rgb
    compressed: NDArray[np.bool_]
    around: Rgb | None


class PatchSampler:
    """Random patches: pictures drawn by area, flipped and turned, flat ones drawn again.

    A batch depends on the seed and the iteration alone, so a resumed run sees the patches it would have seen.
    """

    def __init__(
        self, pairs: PackedPairs, lr_patch: int, seed: tuple[int, ...], *, around: bool = False
    ) -> None:
        self._pairs, self._patch, self._seed, self._around = pairs, lr_patch, seed, around
        area = np.array([p.lr.shape[0] * p.lr.shape[1] for p in pairs.pairs], dtype=np.float64)
        self._chance = area / area.sum()

    def batch(self, size: int, iteration: int) -> Patches:
        rng = np.random.default_rng((*self._seed, iteration))
        drawn = [self._draw(rng) for _ in range(size)]
        return Patches(
            lr=np.stack([patch.lr for patch, _ in drawn]),
            hr=np.stack([patch.hr for patch, _ in drawn]),
            compressed=np.array([patch.compressed for patch, _ in drawn]),
            around=np.stack([around for _, around in drawn]) if self._around else None,
        )

    def _draw(self, rng: np.random.Generator) -> tuple[Pair, Rgb]:
        """A patch, and what is around it, or the patch itself where that isn't asked for."""
        p, s = self._patch, self._pairs.scale
        for _ in range(4):
            pair = self._pairs.pairs[rng.choice(len(self._chance), p=self._chance)]
            y, x = rng.integers(pair.lr.shape[0] - p + 1), rng.integers(pair.lr.shape[1] - p + 1)
            lr = pair.lr[y : y + p, x : x + p]
            # Sky and blur teach nothing; three more tries find texture in nearly every photograph.
            if lr[..., 1].std() > 4:
                break
        hr = pair.hr[s * y : s * (y + p), s * x : s * (x + p)]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))

        def augment(patch: Rgb) -> Rgb:
            turned = np.rot90(patch, turns)
            return turned[:, ::-1] if flip else turned

        around = _around(pair.lr, y, x, p, rng) if self._around else lr
        return Pair(lr=augment(lr), hr=augment(hr), compressed=pair.compressed), augment(around)


def _around(picture: Rgb, y: int, x: int, size: int, rng: np.random.Generator) -> Rgb:
    """AROUND × AROUND of a picture with the patch at (y, x) in it; of a smaller one all, and it mirrored."""
    window = []
    for start, side in zip((y, x), picture.shape[:2], strict=True):
        first = min(max(0, start - int(rng.integers(AROUND - size + 1))), max(0, side - AROUND))
        window.append(slice(first, first + AROUND))
    part = picture[tuple(window)]
    missing = [(0, AROUND - side) for side in part.shape[:2]]
    return np.pad(part, [*missing, (0, 0)], mode="symmetric")


def to_network(rgb: NDArray[np.uint8], colour: str, *, exact: bool = False) -> Tensor:
    """(B, h, w, 3) uint8 RGB → (B, C, h, w) float32 on the 0-255 scale, as a network of `colour` takes it:
    luma in whole levels, as streams have it, but if `exact`."""
    if colour == "y":
        luma = rgb_to_y(rgb)
        return torch.from_numpy((luma if exact else np.rint(luma)).astype(np.float32))[:, None]
    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float()
    return planes.contiguous(memory_format=torch.channels_last)
