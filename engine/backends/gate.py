"""The parity gate of engines that are made where they run: no frame is shown before one was compared."""

from dataclasses import replace
from itertools import islice

import numpy as np

from engine.errors import ParityError
from engine.frame import Engine, EngineSpec, Plane, YuvFrame
from engine.parity import LOWEST_DB, parity_db
from engine.sample_frames import DEFAULT, sample_frames

_FRAMES = 2


def measure(engine: Engine, reference: Engine) -> float:
    """PSNR of the engine's luma against the reference's, in dB, on real pictures of the engine's size."""
    pictures = islice((frame.yuv() for frame in sample_frames(DEFAULT)), _FRAMES)
    frames = [repeated(picture, engine.spec.width, engine.spec.height) for picture in pictures]
    return parity_db(engine, reference, frames)


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
