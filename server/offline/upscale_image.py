"""An image file through the bare network: exactly its output, rounded and clamped, as PNG."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.frame import Precision
from engine.load import Choice, choose_net, load_net
from engine.net import upscale_image


def upscale_image_file(
    source: Path,
    target: Path,
    *,
    model: str,
    backend: str | None,
    precision: Precision | None,
    threads: int,
) -> tuple[Choice, tuple[int, int]]:
    """What did it, and the size of the result. Raises ValueError for a file that is no image."""
    if target.suffix.lower() != ".png":
        raise ValueError(
            f"{target.name}: an image is written as .png, which keeps every value, not {target.suffix!r}"
        )
    try:
        with Image.open(source) as image:
            if "A" in image.getbands():
                raise ValueError(f"{source}: has transparency, which no network here upscales")
            rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as exc:
        raise ValueError(f"{source}: is no image") from exc
    except (OSError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ValueError(f"{source}: is damaged ({exc})") from exc
    choice = choose_net(model, backend, precision)
    net = load_net(model, backend=backend, precision=precision, threads=threads)
    result = Image.fromarray(upscale_image(net, rgb))
    partial = target.with_name(f".{target.stem}.partial.png")
    try:
        result.save(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return choice, result.size
