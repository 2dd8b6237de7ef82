"""What an engine was measured to do on one GPU at one size, as its manifest keeps it. Free of torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePerformance:
    """Lanes of one kind, driven as fast as they go. By how many of them: `frame_ms`, milliseconds from one
    frame's end to the next one's; `p99_ms`, from handing a frame in until it is out. `best` suits a live
    stream; `lane_bytes` is what each takes of the GPU's memory."""

    best: int
    frame_ms: dict[int, float] = field(hash=False)
    p99_ms: dict[int, float] = field(hash=False)
    lane_bytes: int

    @property
    def fastest_ms(self) -> float:
        return self.frame_ms[self.best]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for what `asdict` did not write."""
        frame_ms, p99_ms = (
            {int(lanes): float(ms) for lanes, ms in fields[name].items()} for name in ("frame_ms", "p99_ms")
        )
        best = int(fields["best"])
        if best not in frame_ms:
            raise ValueError(f"best={best} must be one of {list(frame_ms)}")
        return cls(best=best, frame_ms=frame_ms, p99_ms=p99_ms, lane_bytes=int(fields["lane_bytes"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """PSNR in dB against the float32 reference, bytes of the GPU's memory that all lanes share, and what
    lanes do whose frames end on the host, and those whose frames are surfaces of the GPU on both sides."""

    parity_db: float
    engine_bytes: int
    host: LanePerformance
    surface: LanePerformance

    def to_dict(self) -> dict[str, Any]:
        """As JSON gives it back, whose keys are text."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields

    def memory_bytes(self, *, on_gpu: bool) -> int:
        """Of the engine with as many lanes as suit it."""
        lanes = self.surface if on_gpu else self.host
        return self.engine_bytes + lanes.best * lanes.lane_bytes

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for what `to_dict` did not write."""
        return cls(
            parity_db=float(fields["parity_db"]),
            engine_bytes=int(fields["engine_bytes"]),
            host=LanePerformance.from_dict(fields["host"]),
            surface=LanePerformance.from_dict(fields["surface"]),
        )
