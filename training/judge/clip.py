"""Test clips: a video's frames as HR, the same made small, and as the decoder of a live stream gives them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from engine.frame import USUAL_FPS, Colour, Matrix, Plane, YuvFrame, usual_matrix
from engine.network.bicubic import Polyphase, shrinking
from training.data.resize import downscale

# ITU-T H.273 code points, and libav's of the range.
_BT709, _BT601, _FULL_RANGE = 1, (5, 6), 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """width and height: HR's, cropped so that LR has even sides."""

    path: Path
    scale: int
    width: int
    height: int
    fps: Fraction
    colour: Colour


def open_clip(path: Path, scale: int) -> Clip:
    """Raises ValueError naming a file that is no video, or one that is too small."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        frame = next(_decoded(path, container), None)
        if frame is None:
            raise ValueError(f"{path} has no frame")
        width, height = (side - side % (2 * scale) for side in (frame.width, frame.height))
        if min(width, height) < 16 * scale:
            raise ValueError(
                f"{path} is {frame.width}×{frame.height}; its LR must have at least 16×16 pixels"
            )
        colour = Colour(matrix=_matrix(frame), full_range=frame.color_range == _FULL_RANGE)
        fps = Fraction(stream.average_rate or USUAL_FPS)
        return Clip(path=path, scale=scale, width=width, height=height, fps=fps, colour=colour)


def hr_frames(clip: Clip, most: int) -> Iterator[YuvFrame]:
    """The first `most` frames, in 8 bits 4:2:0. Raises ValueError where the video breaks or shrinks."""
    with _opened(clip.path) as container:
        for frame in islice(_decoded(clip.path, container), most):
            if frame.width < clip.width or frame.height < clip.height:
                raise ValueError(f"{clip.path} shrinks to {frame.width}×{frame.height}")
            if frame.format.name not in ("yuv420p", "yuvj420p"):
                frame = frame.reformat(format="yuv420p")
            yield _planes(frame, clip.width, clip.height)


def lr_frames(clip: Clip, most: int) -> Iterator[YuvFrame]:
    """Luma made small as the benchmarks do; chroma by the same kernel, sited as 4:2:0 is."""
    scale = clip.scale
    # As `frame_net` has the positions: chroma lies half-way between two rows, on every second column.
    vertical, horizontal = shrinking(scale, (scale - 1) / 2), shrinking(scale, (scale - 1) / 4)
    for hr in hr_frames(clip, most):
        u, v = (_shrink(_shrink(p, vertical, scale).T, horizontal, scale).T for p in (hr.u, hr.v))
        yield YuvFrame(y=downscale(hr.y, scale), u=np.ascontiguousarray(u), v=np.ascontiguousarray(v))


class H264:
    """One encode and decode by x264 as a live encoder is set: CRF, no look-ahead."""

    def __init__(self, width: int, height: int, fps: Fraction, crf: int, preset: str = "veryfast") -> None:
        self._width, self._height, self._fps = width, height, fps
        self._options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
        self._bytes = 0

    def through(self, frames: Iterable[YuvFrame]) -> Iterator[YuvFrame]:
        """Frames after encoding and decoding: as many as come in, in their order."""
        encoder = av.VideoCodecContext.create("libx264", "w")
        decoder = av.VideoCodecContext.create("h264", "r")
        assert isinstance(encoder, av.VideoCodecContext)
        assert isinstance(decoder, av.VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = self._width, self._height, "yuv420p"
        encoder.framerate, encoder.time_base = self._fps, 1 / self._fps
        encoder.options = self._options
        for picture in chain(map(_to_av, frames), [None]):  # None flushes
            for packet in encoder.encode(picture):
                self._bytes += packet.size
                for frame in decoder.decode(packet):
                    yield _planes(frame, self._width, self._height)
        for frame in decoder.decode(None):
            yield _planes(frame, self._width, self._height)

    def bitrate_bps(self, frames: int) -> float:
        """Bitrate of the encoded clip, given its frame count."""
        return float(8 * self._bytes / frames * self._fps)


def _opened(path: Path) -> InputContainer:
    try:
        container = av.open(path)
    except av.FFmpegError as exc:
        raise ValueError(f"{path} is no readable video: {exc.strerror}") from exc
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} has no video stream")
    return container


def _decoded(path: Path, container: InputContainer) -> Iterator[av.VideoFrame]:
    try:
        yield from container.decode(container.streams.video[0])
    except av.FFmpegError as exc:
        raise ValueError(f"{path} breaks off: {exc.strerror}") from exc


def _matrix(frame: av.VideoFrame) -> Matrix:
    if frame.colorspace in _BT601:
        return "bt601"
    return "bt709" if frame.colorspace == _BT709 else usual_matrix(frame.height)


def _planes(frame: av.VideoFrame, width: int, height: int) -> YuvFrame:
    """The top left of the picture, copied out of the decoder's memory."""

    def plane(index: int, step: int) -> Plane:
        source = frame.planes[index]
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        cropped: Plane = rows[: height // step, : width // step].copy()
        return cropped

    return YuvFrame(y=plane(0, 1), u=plane(1, 2), v=plane(2, 2))


def _to_av(frame: YuvFrame) -> av.VideoFrame:
    height, width = frame.y.shape
    planes = np.concatenate([plane.ravel() for plane in (frame.y, frame.u, frame.v)])
    return av.VideoFrame.from_ndarray(planes.reshape(height * 3 // 2, width), format="yuv420p")


def _shrink(plane: Plane, axis: Polyphase, step: int) -> Plane:
    """Shrinks along the first axis, borders repeated."""
    padded = np.pad(plane, ((axis.before, axis.after), (0, 0)), mode="edge").astype(np.float64)
    size = plane.shape[0] // step
    out = np.zeros((size, plane.shape[1]))
    for tap, weight in enumerate(axis.taps[0]):
        out += weight * padded[tap : tap + step * (size - 1) + 1 : step]
    rounded: Plane = np.rint(out.clip(0, 255)).astype(np.uint8)
    return rounded
