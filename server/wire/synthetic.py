"""The made picture as a source: `synthetic:?size=320x180&fps=25`."""

import re
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import parse_qsl

from engine.frame import USUAL_FPS

_LOOKS = {"size": r"\d{1,9}x\d{1,9}", "fps": r"\d{1,5}(\.\d{1,5}|/0*[1-9]\d{0,4})?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticFormat:
    """`synthetic:?size=320x180&fps=25` as values."""

    width: int = 320
    height: int = 180
    fps: Fraction = Fraction(USUAL_FPS)

    def __post_init__(self) -> None:
        for name, value, least in (("width", self.width, 80), ("height", self.height, 48)):
            if value % 2 or not least <= value <= 3840:
                raise ValueError(f"synthetic {name}={value} must be even, from {least} to 3840")
        if not 1 <= self.fps <= 240:
            raise ValueError(f"synthetic fps={self.fps} must be from 1 to 240")


def parse_synthetic(url: str) -> SyntheticFormat:
    """Raises ValueError for a key or a value that is none of `size=WxH` and `fps=N` (or N/D)."""
    query = url.partition(":")[2].lstrip("/").removeprefix("?")
    values: dict[str, int | Fraction] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _LOOKS:
            raise ValueError(f"synthetic source: {key!r} must be size or fps")
        if not re.fullmatch(_LOOKS[key], value, re.ASCII):
            raise ValueError(f"synthetic {key}={value!r} must be like 320x180 or 25")
        if key == "size":
            width, height = value.split("x")
            values |= {"width": int(width), "height": int(height)}
        else:
            values["fps"] = Fraction(value).limit_denominator(1001)
    return SyntheticFormat(**values)  # type: ignore[arg-type]
