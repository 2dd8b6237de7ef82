"""Training patches: a folder of HR images, their LR made the benchmarks' way, random crops of both.

The decoded images are packed into one file beside the run, so that later runs start at once and crops
come from the page cache.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from training.resize import crop_to_multiple, downscale

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, whatever 8-bit mode the file has. Raises ValueError naming a file that is no image."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as exc:
        raise ValueError(f"{path} is no readable image: {exc}") from exc


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name. Raises ValueError where there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))})")
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One image twice, uint8 RGB: lr (h, w, 3) and hr (s·h, s·w, 3)."""

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


class PackedPairs:
    """All pairs of a folder in one memory-mapped file; `sha256` names its content."""

    def __init__(self, folder: Path, scale: int, cache: Path, *, min_side: int) -> None:
        files = image_files(folder)
        identity = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        key = hashlib.sha256(json.dumps([identity, scale, min_side]).encode()).hexdigest()[:16]
        self._data_path, index_path = cache / f"{key}.u8", cache / f"{key}.json"
        if not index_path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            self._pack(files, scale, min_side, index_path)
        index = json.loads(index_path.read_text())
        self.sha256: str = index["sha256"]
        self.scale = scale
        data = np.memmap(self._data_path, dtype=np.uint8, mode="r")
        self.pairs: list[Pair] = []
        for offset, h, w in index["images"]:
            middle = offset + 3 * h * w
            end = middle + 3 * h * w * scale**2
            lr = data[offset:middle].reshape(h, w, 3)
            hr = data[middle:end].reshape(h * scale, w * scale, 3)
            self.pairs.append(Pair(lr=lr, hr=hr))

    def _pack(self, files: Sequence[Path], scale: int, min_side: int, index_path: Path) -> None:
        images: list[tuple[int, int, int]] = []
        digest = hashlib.sha256()
        partial = self._data_path.with_suffix(f".{os.getpid()}.partial")
        offset = 0
        with partial.open("wb") as out:
            for file in files:
                hr = np.ascontiguousarray(crop_to_multiple(read_rgb(file), scale))
                if min(hr.shape[:2]) < min_side:
                    size = f"{hr.shape[1]}×{hr.shape[0]}"
                    raise ValueError(f"{file} is {size}, smaller than the {min_side}×{min_side} crop")
                lr = downscale(hr, scale)
                for part in (lr, hr):
                    out.write(part.tobytes())
                    digest.update(part.tobytes())
                images.append((offset, lr.shape[0], lr.shape[1]))
                offset += lr.size + hr.size
        os.replace(partial, self._data_path)
        index_path.write_text(json.dumps({"images": images, "sha256": digest.hexdigest()}))


class PatchSampler:
    """Seeded random patches: images drawn by area, flipped and turned, flat ones drawn again."""

    def __init__(self, pairs: PackedPairs, lr_patch: int, rng: np.random.Generator) -> None:
        self._pairs, self._patch, self.rng = pairs, lr_patch, rng
        area = np.array([p.lr.shape[0] * p.lr.shape[1] for p in pairs.pairs], dtype=np.float64)
        self._chance = area / area.sum()

    def batch(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(B, p, p, 3) LR and (B, s·p, s·p, 3) HR, uint8 RGB."""
        patches = [self._patch_pair() for _ in range(size)]
        return np.stack([p.lr for p in patches]), np.stack([p.hr for p in patches])

    def _patch_pair(self) -> Pair:
        rng, p, s = self.rng, self._patch, self._pairs.scale
        for _ in range(4):
            pair = self._pairs.pairs[rng.choice(len(self._chance), p=self._chance)]
            y, x = rng.integers(pair.lr.shape[0] - p + 1), rng.integers(pair.lr.shape[1] - p + 1)
            lr = pair.lr[y : y + p, x : x + p]
            # Sky and blur teach nothing; three more tries find texture in nearly every photograph.
            if lr[..., 1].std() > 4:
                break
        hr = pair.hr[s * y : s * (y + p), s * x : s * (x + p)]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))

        def augment(a: NDArray[np.uint8]) -> NDArray[np.uint8]:
            turned = np.rot90(a, turns)
            return turned[:, ::-1] if flip else turned

        return Pair(lr=augment(lr), hr=augment(hr))
