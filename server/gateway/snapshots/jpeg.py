"""From a key frame to a JPEG file."""

from io import BytesIO

import av
from av.video.reformatter import ColorRange, Interpolation
from PIL import Image

_QUALITY = 85


def to_jpeg(key_frame: bytes, width: int, height: int) -> bytes:
    """`key_frame` is H.264 in Annex B with its parameter sets. Takes milliseconds: not for the event loop.
    Raises ValueError where that is no picture."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    try:
        frames = [*decoder.decode(av.Packet(key_frame)), *decoder.decode(None)]
    except av.error.FFmpegError as exc:
        raise ValueError(f"no picture can be decoded: {exc.strerror}") from exc
    if not frames:
        raise ValueError("no picture can be decoded")
    picture = frames[0].reformat(
        width=width,
        height=height,
        format="rgb24",
        interpolation=Interpolation.AREA,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    file = BytesIO()
    Image.fromarray(picture.to_ndarray()).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
