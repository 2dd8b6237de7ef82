"""Real frames to calibrate and to measure parity on: from a folder of images or a video file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.config import ColourKind
from engine.frame import YuvFrame
from engine.net import Batch, to_ycbcr

DEFAULT = Path(__file__).parent / "zoo" / "calibration"
WIDTH, HEIGHT = 320, 180
MOST = 24
# Half a minute of video: a film shall not stand in memory.
MOST_DECODED = 750
Item = TypeVar("Item")
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFrame:
    """One frame as 8-bit RGB (180, 320, 3)."""

    rgb: NDArray[np.uint8]

    def net_input(self, kind: ColourKind) -> Batch:
        if kind == "rgb":
            return np.ascontiguousarray(self.rgb.transpose(2, 0, 1)[None], np.float32)
        return np.rint(to_ycbcr(self.rgb)[None, None, :, :, 0])

    def yuv(self) -> YuvFrame:
        """BT.601 limited; chroma averaged over 2×2."""
        planes = to_ycbcr(self.rgb)
        chroma = planes[:, :, 1:].reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 2).mean(axis=(1, 3))
        y, u, v = (
            np.ascontiguousarray(np.rint(p).astype(np.uint8))
            for p in (planes[:, :, 0], chroma[:, :, 0], chroma[:, :, 1])
        )
        return YuvFrame(y=y, u=u, v=v)


def sample_frames(path: Path) -> list[SampleFrame]:
    """Sample frames: at most 24, evenly spread, shrunk and cropped to 320×180. Raises ValueError where fewer
    than 2 are."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
        images = [_open(file) for file in _spread(files)]
    elif path.is_file():
        images = _decode(path)
    else:
        raise FileNotFoundError(f"frames {path} do not exist")
    if len(images) < 2:
        raise ValueError(f"{path} holds {len(images)} frames, must hold at least 2")
    fitted = (ImageOps.fit(image, (WIDTH, HEIGHT), Image.Resampling.BICUBIC) for image in images)
    return [SampleFrame(rgb=np.asarray(image.convert("RGB"))) for image in fitted]


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as exc:  # as Pillow sees damage
        raise ValueError(f"{file} is no readable image: {exc}") from exc


def _decode(path: Path) -> list[Image.Image]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            frames = [_shrink(frame) for frame in islice(container.decode(video=0), MOST_DECODED)]
    except av.FFmpegError as exc:
        raise ValueError(f"{path} is neither a folder of images nor a video: {exc}") from exc
    return _spread(frames)


def _shrink(frame: av.VideoFrame) -> Image.Image:
    factor = max(WIDTH / frame.width, HEIGHT / frame.height)
    width, height = math.ceil(frame.width * factor), math.ceil(frame.height * factor)
    return Image.fromarray(frame.to_ndarray(format="rgb24", width=width, height=height))


def _spread(items: Sequence[Item]) -> list[Item]:
    count = min(len(items), MOST)
    return [items[i * len(items) // count] for i in range(count)]
