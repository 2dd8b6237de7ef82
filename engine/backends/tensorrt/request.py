"""What a TensorRT engine is made for: everything that decides what it computes and where it runs, and the key
that follows from it. Free of torch, so that a service can look for an engine without it."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from engine.batches import BATCHES, batch_sizes, most_side
from engine.config import ColourKind
from engine.frame import Colour, Precision
from engine.shipped import model_name

Size = tuple[int, int]  # width, height of the LR frame in pixels
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
_FROM_AMPERE = "any GPU from Ampere on"

# What the graph is made by: a change of any makes every engine another one.
_ENGINE = Path(__file__).parents[2]
_GRAPH_SOURCES = (
    "config.py",
    "network/awsrn.py",
    "network/bicubic.py",
    "network/checkpoint.py",
    "network/fold.py",
    "network/frame_net.py",
    "network/quantise.py",
    "backends/tensorrt/export.py",
)
_CALIBRATION = _ENGINE / "zoo" / "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The LR frames that an engine takes: from smallest to largest, and fastest at the typical size."""

    smallest: Size
    typical: Size
    largest: Size

    def __post_init__(self) -> None:
        for size in (self.smallest, self.typical, self.largest):
            if any(side < 2 or side % 2 for side in size):
                raise ValueError(f"size {_text(size)} must have even sides")
        for less, more in ((self.smallest, self.typical), (self.typical, self.largest)):
            if less[0] > more[0] or less[1] > more[1]:
                raise ValueError(f"sizes {self} must not shrink: {_text(less)} is larger than {_text(more)}")

    @classmethod
    def only(cls, width: int, height: int) -> Self:
        size = (width, height)
        return cls(smallest=size, typical=size, largest=size)

    @classmethod
    def parse(cls, text: str) -> Self:
        """WIDTHxHEIGHT or SMALLEST:TYPICAL:LARGEST, as `str` writes them. Raises ValueError."""
        sizes = [_parse(part) for part in text.split(":")]
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3:
            raise ValueError(f"sizes {text!r} must be WIDTHxHEIGHT or SMALLEST:TYPICAL:LARGEST of them")
        return cls(smallest=sizes[0], typical=sizes[1], largest=sizes[2])

    @property
    def dynamic(self) -> bool:
        return self.smallest != self.largest

    def takes(self, width: int, height: int) -> bool:
        across = self.smallest[0] <= width <= self.largest[0]
        return across and self.smallest[1] <= height <= self.largest[1]

    def of_batch(self, batch: int) -> Self:
        """Those of frames that go through the engine so many at once: large ones don't."""
        side = most_side(batch) if batch > 1 else max(self.largest)

        def within(size: Size) -> Size:
            return min(size[0], side), min(size[1], side)

        return type(self)(
            smallest=within(self.smallest), typical=within(self.typical), largest=within(self.largest)
        )

    @property
    def batches(self) -> tuple[int, ...]:
        """How many of them may go through an engine at once."""
        return batch_sizes(*self.smallest)

    def __str__(self) -> str:
        sizes = (self.smallest, self.typical, self.largest) if self.dynamic else (self.typical,)
        return ":".join(_text(size) for size in sizes)


# Nearly every source's, upright ones too.
ANY_SIZE = Sizes(smallest=(64, 64), typical=(640, 360), largest=(1920, 1920))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The GPU and the libraries that an engine is compiled for; it runs on no other. That GPU may be any that
    is Ampere or newer."""

    gpu: str  # as the driver calls it
    compute_capability: str
    tensorrt: str
    torch: str
    torch_tensorrt: str

    @property
    def portable(self) -> bool:
        return self.gpu == _FROM_AMPERE

    def any_gpu(self) -> Self | None:
        """The same libraries on every GPU from Ampere on; None where this one is older, whose engines run on
        their own kind only."""
        if not self.portable and float(self.compute_capability) < 8.0:
            return None
        return replace(self, gpu=_FROM_AMPERE, compute_capability="8.0 or higher")

    @property
    def digest(self) -> str:
        return _digest(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One engine. `batches`: how many frames it takes at once, ascending from 1; each has a profile."""

    checkpoint: Path
    checkpoint_sha256: str
    kind: ColourKind
    colour: Colour
    sizes: Sizes
    batches: tuple[int, ...] = (1,)
    precision: Precision = "fp16"
    target: Target

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} must be one of {', '.join(PRECISIONS)}")
        if self.batches != BATCHES[: len(self.batches)] or not self.batches:
            raise ValueError(f"batches={self.batches} must be the first of {BATCHES}")

    def key(self) -> dict[str, Any]:
        """All that decides the engine; not where the checkpoint lies. A `y` network looks at no colour, so
        that one engine serves every stream. As JSON gives it back."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "graph_sha256": graph_sha256(),
            "colour": None if self.kind == "y" else asdict(self.colour),
            "sizes": str(self.sizes),
            "batches": list(self.batches),
            "precision": self.precision,
            "calibration_sha256": calibration_sha256() if self.precision == "int8" else None,
            "target": asdict(self.target),
        }

    @property
    def digest(self) -> str:
        return _digest(self.key())

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"checkpoint": str(self.checkpoint)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        sizes = {name: tuple(size) for name, size in fields.pop("sizes").items()}
        return cls(
            checkpoint=Path(fields.pop("checkpoint")),
            colour=Colour(**fields.pop("colour")),
            sizes=Sizes(**sizes),
            batches=tuple(fields.pop("batches")),
            target=Target(**fields.pop("target")),
            **fields,
        )

    def __str__(self) -> str:
        batch = f", batches of up to {self.batches[-1]}" if len(self.batches) > 1 else ""
        precision = " in int8" if self.precision == "int8" else ""
        return f"{model_name(self.checkpoint)}{precision} at {self.sizes}{batch} on {self.target.gpu}"


@cache
def graph_sha256() -> str:
    """Hash of the source that makes the graph: an engine built by another version of it is not this one's."""
    digest = hashlib.sha256()
    for name in _GRAPH_SOURCES:
        digest.update((_ENGINE / name).read_bytes())
    return digest.hexdigest()


@cache
def calibration_sha256() -> str:
    """Hash of the frames that INT8 takes its ranges from."""
    digest = hashlib.sha256()
    for path in sorted(_CALIBRATION.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _parse(text: str) -> Size:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"size {text!r} must be WIDTHxHEIGHT")
    return int(width), int(height)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
