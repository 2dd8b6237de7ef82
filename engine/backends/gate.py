"""The parity gate of engines that are made where they run: no frame is shown before one was compared.

The float32 reference takes several times the memory of the engine that it judges. Of a large frame it sees
windows only, and what a window's own cut changes is left out of the comparison.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from engine.errors import ParityError
from engine.frame import Engine, EngineSpec, Plane, YuvFrame
from engine.parity import LOWEST_DB, mean_square, psnr_db
from engine.sample_frames import DEFAULT, sample_frames

Size = tuple[int, int]  # width, height of LR frames in pixels
MOST: Size = (640, 360)
# LR pixels of luma that chroma's bicubic kernel brings in beyond what the network looks at.
_CHROMA_REACH = 4
_FRAMES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Part of an LR frame, in pixels; all even."""

    left: int
    top: int
    width: int
    height: int

    def of(self, frame: YuvFrame) -> YuvFrame:
        def cut(plane: Plane, part: int) -> Plane:
            top, left = self.top // part, self.left // part
            rows, columns = self.height // part, self.width // part
            return np.ascontiguousarray(plane[top : top + rows, left : left + columns])

        return YuvFrame(y=cut(frame.y, 1), u=cut(frame.u, 2), v=cut(frame.v, 2))


def measure(
    engine: Engine, reference: Callable[[int, int], Engine], reach: int | None, *, most: Size = MOST
) -> float:
    """PSNR of the engine's luma against the reference's, in dB, on real pictures of the engine's size, none
    of which calibrate INT8. `reference` makes one for frames of a width and height, at most `most`; `reach`:
    `AwsrnConfig.reach`; where that is None, `most` is not heeded."""
    spec = engine.spec
    size = spec.width, spec.height
    if reach is None:  # a window would be another picture
        reach, most = 0, size
    places = windows(size, most)
    ours, theirs = engine.lane(), reference(places[0].width, places[0].height).lane()
    errors: list[float] = []
    for picture in islice((frame.yuv() for frame in sample_frames(DEFAULT)[1::2]), _FRAMES):
        frame = repeated(picture, spec.width, spec.height)
        ours.submit(frame)
        upscaled = ours.wait().y
        for window in places:
            theirs.submit(window.of(frame))
            expected = theirs.wait().y
            rows, columns = _compared(window, size, reach + _CHROMA_REACH, spec.scale)
            top, left = spec.scale * window.top, spec.scale * window.left
            found = upscaled[top : top + expected.shape[0], left : left + expected.shape[1]]
            errors.append(mean_square(found[rows, columns], expected[rows, columns]))
    return psnr_db(float(np.mean(errors)))


def windows(size: Size, most: Size) -> list[Window]:
    """The whole of a small frame; of a large one two opposite corners and the middle."""
    width, height = min(size[0], most[0]), min(size[1], most[1])
    spare = size[0] - width, size[1] - height
    if spare == (0, 0):
        return [Window(left=0, top=0, width=width, height=height)]
    lefts, tops = ((0, part // 4 * 2, part) for part in spare)
    return [
        Window(left=left, top=top, width=width, height=height) for left, top in zip(lefts, tops, strict=True)
    ]


def _compared(window: Window, size: Size, margin: int, scale: int) -> Iterator[slice]:
    """Rows and columns of a window's output that do not depend on what was cut off around it."""
    for start, length, whole in (
        (window.top, window.height, size[1]),
        (window.left, window.width, size[0]),
    ):
        first = 0 if start == 0 else margin
        last = length if start + length == whole else length - margin
        assert first < last, f"a window of {window.width}×{window.height} is all margin: {margin}"
        yield slice(scale * first, scale * last)


def passed(spec: EngineSpec, parity: float) -> EngineSpec:
    """The spec with what was measured. Raises ParityError where that is too far from the reference."""
    assert spec.precision is not None
    lowest = LOWEST_DB[spec.precision]
    if not parity >= lowest:
        raise ParityError(
            f"{spec.model} in {spec.precision} on {spec.backend} is {parity:.1f} dB from the float32 "
            f"reference, must be at least {lowest:.0f} dB"
        )
    return replace(spec, parity_db=round(parity, 2))


def repeated(frame: YuvFrame, width: int, height: int) -> YuvFrame:
    """The picture beside and below itself until it fills width × height."""

    def fill(plane: Plane, width: int, height: int) -> Plane:
        rows, columns = -(-height // plane.shape[0]), -(-width // plane.shape[1])
        return np.ascontiguousarray(np.tile(plane, (rows, columns))[:height, :width])

    half = width // 2, height // 2
    return YuvFrame(y=fill(frame.y, width, height), u=fill(frame.u, *half), v=fill(frame.v, *half))
