"""The frames that were shown last, to be shown again where none comes."""

from collections.abc import Callable
from dataclasses import dataclass

import av

from server.wire.messages import Opened
from server.worker.encode.slate import dark_frame
from server.worker.process.picture import (
    ColourTags,
    Picture,
    PictureFormat,
    frame_from_planes,
    host_frame,
    host_planes,
)


@dataclass(slots=True, kw_only=True)
class Shown:
    """What was shown last: the frames that renditions are made of, and where it lies in time."""

    form: PictureFormat
    upscaled: av.VideoFrame
    source: Callable[[], av.VideoFrame]
    opening: int
    duration: int
    shown_ns: int
    lead: int  # of its timestamp before that moment


def dark(before: Opened) -> Shown:
    """In the place of the picture that another worker has shown last."""
    source, output = before.source, before.output
    form = PictureFormat(
        codec=source.codec,
        pixel_format=source.pixel_format,
        width=source.width,
        height=source.height,
        fps=source.fps,
        sample_aspect_ratio=source.sample_aspect_ratio,
        tags=ColourTags(range=0, matrix=2, primaries=2, transfer=2),
        decoder=source.decoder,
    )
    source_frame = dark_frame(*form.scaled_size(1))
    return Shown(
        form=form,
        upscaled=dark_frame(output.width, output.height),
        source=lambda: source_frame,
        opening=0,
        duration=0,
        shown_ns=0,
        lead=0,
    )


def even_frame(picture: Picture) -> av.VideoFrame:
    """The source's picture as H.264 4:2:0 can code it."""
    width, height = picture.format.scaled_size(1)
    frame = host_frame(picture)
    if (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p"):
        return frame
    return frame_from_planes(host_planes(picture), width, height)
