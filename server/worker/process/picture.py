"""One decoded picture as the pipeline carries it: 8-bit 4:2:0 planes, their format, and when they came.

It lies on the host, or as an NV12 surface in the GPU's memory; `host_frame` and `host_planes` bring it here.
"""

from dataclasses import dataclass
from typing import Self

import av
import numpy as np

from engine.frame import Colour, DeviceFrame, Plane, YuvFrame, usual_matrix

# Code points of ITU-T H.273, which are libav's.
RANGE_LIMITED, RANGE_FULL = 1, 2
MATRIX_BT709, MATRIX_BT470BG, MATRIX_BT601 = 1, 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourTags:
    """How the stream says its colours are meant, as H.273 code points; 0 or 2 where it does not say."""

    range: int
    matrix: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        return cls(
            range=int(frame.color_range),
            matrix=int(frame.colorspace),
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormat:
    """What engine and encoder are built for: a change of it rebuilds both. Sizes are the source's own."""

    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float  # nominal; 0 where the source does not say
    sample_aspect_ratio: tuple[int, int]
    tags: ColourTags
    decoder: str = ""  # libav's name of it, or NVDEC

    @property
    def colour(self) -> Colour:
        matrix = usual_matrix(self.height)
        if self.tags.matrix == MATRIX_BT709:
            matrix = "bt709"
        elif self.tags.matrix in (MATRIX_BT470BG, MATRIX_BT601):
            matrix = "bt601"
        return Colour(matrix=matrix, full_range=self.tags.range == RANGE_FULL)

    @property
    def even_size(self) -> tuple[int, int]:
        """Width and height of the planes, padded to even."""
        return self.width + self.width % 2, self.height + self.height % 2

    def scaled_size(self, scale: int) -> tuple[int, int]:
        """The largest even width and height within `scale` × the source's."""
        return self.width * scale // 2 * 2, self.height * scale // 2 * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`pts` and `duration` tick as the decoder's stamp decided; times are of CLOCK_MONOTONIC."""

    format: PictureFormat
    frame: av.VideoFrame  # yuv420p at the source's size, or a surface
    planes: YuvFrame | DeviceFrame  # of that frame, padded to even sides by repeating the edge
    pts: int
    duration: int  # 0 where the source does not say
    arrival_ns: int  # of its packet's last byte
    demuxed_ns: int
    decoded_ns: int
    opening: int = 1  # of the source: how many times it had been opened

    @property
    def on_gpu(self) -> bool:
        return isinstance(self.planes, DeviceFrame)


def plane_view(frame: av.VideoFrame, index: int) -> Plane:
    """The samples of one 8-bit plane without copying: (h, w), rows apart by the plane's line size."""
    plane = frame.planes[index]
    samples: Plane = np.frombuffer(memoryview(plane), np.uint8)
    return samples.reshape(-1, plane.line_size)[: plane.height, : plane.width]


def new_frame(width: int, height: int) -> tuple[av.VideoFrame, YuvFrame]:
    """A frame and its planes, to be written; both sides are even."""
    frame = av.VideoFrame(width, height, "yuv420p")
    y, u, v = (plane_view(frame, index) for index in range(3))
    return frame, YuvFrame(y=y, u=u, v=v)


def frame_from_planes(planes: YuvFrame, width: int, height: int) -> av.VideoFrame:
    """A frame of its own with the top left width × height of the planes; both sides are even."""
    frame, targets = new_frame(width, height)
    pairs = (targets.y, planes.y), (targets.u, planes.u), (targets.v, planes.v)
    for target, source in pairs:
        np.copyto(target, source[: target.shape[0], : target.shape[1]])
    return frame


def turned(frame: av.VideoFrame, quarters: int) -> av.VideoFrame:
    """A yuv420p frame of its own, turned counterclockwise by so many quarters of a circle."""
    sides = (frame.height, frame.width) if quarters % 2 else (frame.width, frame.height)
    target = av.VideoFrame(*sides, "yuv420p")
    for index in range(3):
        np.copyto(plane_view(target, index), np.rot90(plane_view(frame, index), quarters))
    return target


def host_frame(picture: Picture) -> av.VideoFrame:
    """The picture as yuv420p on the host; a surface is downloaded for it."""
    if not picture.on_gpu:
        return picture.frame
    return picture.frame.reformat(format="yuv420p", threads=1)


def host_planes(picture: Picture) -> YuvFrame:
    planes = picture.planes
    return planes if isinstance(planes, YuvFrame) else even_planes(host_frame(picture))


def even_planes(frame: av.VideoFrame) -> YuvFrame:
    """Views of the planes; where a side is odd, luma is a copy with its last row or column repeated."""
    y: Plane = plane_view(frame, 0)
    if frame.height % 2 or frame.width % 2:
        y = np.pad(y, ((0, frame.height % 2), (0, frame.width % 2)), mode="edge")
    return YuvFrame(y=y, u=plane_view(frame, 1), v=plane_view(frame, 2))
