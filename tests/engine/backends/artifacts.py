"""What the tests of the cache of TensorRT engines build and look for."""

from pathlib import Path
from typing import Any

from engine.backends.tensorrt.request import BuildRequest, Sizes, Target
from engine.backends.tensorrt.store import ENGINE
from engine.frame import Colour
from engine.performance import LanePerformance, Performance

TARGET = Target(
    gpu="NVIDIA L4", compute_capability="8.9", tensorrt="11.0.1", torch="2.13.0", torch_tensorrt="2.13.0"
)
REQUEST = BuildRequest(
    checkpoint=Path("net.safetensors"),
    checkpoint_sha256="ab" * 32,
    kind="y",
    colour=Colour(),
    sizes=Sizes.only(640, 360),
    target=TARGET,
)


def performance(lanes: int = 2) -> Performance:
    driven = LanePerformance(
        best=lanes, frame_ms={1: 5.0, lanes: 4.0}, p99_ms={1: 5.0, lanes: 8.0}, lane_bytes=1 << 20
    )
    return Performance(parity_db=61.2, engine_bytes=1 << 20, host=driven, surface=driven)


def measured(**by_size: int) -> dict[str, Any]:
    """What a builder found out, and the lanes that it found best by size."""
    return {
        "gpu": TARGET.gpu,
        "performance": {size.strip("_"): performance(lanes).to_dict() for size, lanes in by_size.items()},
    }


FACTS = measured(_640x360=2)


def corrupt_engine(entry: Path) -> None:
    (entry / ENGINE).write_bytes(b"engine!")
