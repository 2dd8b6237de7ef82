"""What was measured of a model that ships, as `livesr evaluate` prints it, and on what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from training.paper.comparison import Row, to_json

_ROWS = ("int8", "float32", "bicubic", "lanczos")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Sets and clips by name; `crfs` and `frames` (at most, of each clip) as `livesr evaluate` takes them."""

    sets: tuple[str, ...]
    videos: tuple[str, ...] = ()
    crfs: tuple[int, ...] = ()
    frames: int = 0

    def options(self) -> str:
        """Those of `livesr evaluate`."""
        words = [f"--set {name}=DIR" for name in self.sets]
        words += [f"--video {name}" for name in self.videos]
        words += [f"--crf {crf}" for crf in self.crfs]
        return " ".join(words + ([f"--frames {self.frames}"] if self.videos else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`int8`: the artifact that ships, on all of the material; `float32`: its checkpoint, on the sets alone.
    Bicubic is judged on the sets, Lanczos on the clips. `artifact_files`: their SHA-256, as its manifest has
    it, for the same weights may be built anew."""

    checkpoint_sha256: str
    artifact_files: Mapping[str, str]
    material: Material
    int8: Row
    float32: Row
    bicubic: Row
    lanczos: Row

    def to_dict(self) -> dict[str, Any]:
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "artifact_files": dict(self.artifact_files),
            "material": asdict(self.material),
            **{name: to_json(getattr(self, name)) for name in _ROWS},
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        material = fields["material"]
        return cls(
            checkpoint_sha256=fields["checkpoint_sha256"],
            artifact_files=fields.get("artifact_files", {}),
            material=Material(
                sets=tuple(material["sets"]),
                videos=tuple(material["videos"]),
                crfs=tuple(material["crfs"]),
                frames=material["frames"],
            ),
            **{name: Row.from_json(fields[name]) for name in _ROWS},
        )
