"""What viewers see while the source is away: the last picture dimmed, with a line of text, or an image."""

from datetime import datetime
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from server.wire.messages import Rendition
from server.worker.process.picture import (
    MATRIX_BT601,
    MATRIX_BT709,
    RANGE_FULL,
    RANGE_LIMITED,
    PictureFormat,
    new_frame,
    plane_view,
)

_DIMMED = 0.35
_BLACK, _WHITE, _GREY = 16, 235, 128  # of limited range; in full range a little less than the most
# Of the picture's height, and the least that can be read; of its width at most.
_TEXT_HEIGHT, _LEAST_TEXT_PIXELS, _TEXT_WIDTH = 1 / 16, 8, 0.9


def load_image(path: str | Path) -> Image.Image:
    """An operator's image as RGB. Raises ValueError where it is none."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as exc:
        raise ValueError(f"slate={str(path)!r} is no image") from exc
    except (OSError, Image.DecompressionBombError) as exc:
        raise ValueError(
            f"slate={str(path)!r} can't be read: {getattr(exc, 'strerror', None) or exc}"
        ) from exc


def dark_frame(width: int, height: int) -> VideoFrame:
    """Nothing but black; both sides are even."""
    frame, planes = new_frame(width, height)
    planes.y[:] = _BLACK
    planes.u[:] = planes.v[:] = _GREY
    return frame


def dimmed(last: VideoFrame, since: datetime) -> VideoFrame:
    """A frame of its own: the last one (yuv420p, even sides) dimmed, with the time since when."""
    y, u, v = (plane_view(last, index) for index in range(3))
    frame, planes = new_frame(last.width, last.height)
    planes.y[:] = _BLACK + (y.clip(_BLACK) - float(_BLACK)) * _DIMMED
    planes.u[:] = _GREY + (u - float(_GREY)) * _DIMMED
    planes.v[:] = _GREY + (v - float(_GREY)) * _DIMMED
    shade = _text(f"The source is away since {since:%H:%M:%S} UTC", last.width, last.height)
    planes.y[:] = planes.y + shade * (_WHITE - planes.y.astype(np.float32))
    half = shade[::2, ::2]
    for chroma in (planes.u, planes.v):
        chroma[:] = chroma + half * (_GREY - chroma.astype(np.float32))
    return frame


def letterboxed(image: Image.Image, width: int, height: int, form: PictureFormat) -> VideoFrame:
    """The whole image in the middle of a frame of that size, as square as its pixels are shown."""
    wide, high = form.sample_aspect_ratio
    scale = min(width * wide / high / image.width, height / image.height)
    across, down = image.width * scale * high / wide, image.height * scale
    fitting = image.resize((max(1, round(across)), max(1, round(down))), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(fitting, ((width - fitting.width) // 2, (height - fitting.height) // 2))
    return VideoReformatter().reformat(
        VideoFrame.from_ndarray(np.asarray(canvas), "rgb24"),
        format="yuv420p",
        dst_colorspace=MATRIX_BT709 if form.colour.matrix == "bt709" else MATRIX_BT601,
        src_color_range=RANGE_FULL,
        dst_color_range=RANGE_FULL if form.colour.full_range else RANGE_LIMITED,
        threads=1,
    )


def _text(line: str, width: int, height: int) -> np.ndarray:
    """How much of each pixel the text covers, 0 to 1: (height, width)."""
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    size = max(height * _TEXT_HEIGHT, _LEAST_TEXT_PIXELS)
    length = draw.textlength(line, ImageFont.load_default(size))
    if length > _TEXT_WIDTH * width:
        size *= _TEXT_WIDTH * width / length
    draw.text((width / 2, height / 2), line, 255, ImageFont.load_default(size), anchor="mm")
    return np.asarray(canvas, np.float32) / 255


class Slate:
    """Frames of it, made once for each absence and rendition."""

    def __init__(self, image: Image.Image | None) -> None:
        self._image = image
        self._made: dict[Rendition, tuple[VideoFrame, datetime, VideoFrame]] = {}

    def frame(
        self, rendition: Rendition, last: VideoFrame, form: PictureFormat, since: datetime
    ) -> VideoFrame:
        """Of the size of the rendition's last frame, which is on the host."""
        made = self._made.get(rendition)
        if made is None or made[0] is not last or made[1] != since:
            frame = (
                dimmed(last, since)
                if self._image is None
                else letterboxed(self._image, last.width, last.height, form)
            )
            made = self._made[rendition] = last, since, frame
        return made[2]
