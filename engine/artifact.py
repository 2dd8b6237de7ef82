"""What a build makes: a folder of graphs with a manifest that says what they are and how close they come.

    manifest.json
    net.xml, net.bin            the bare network: float32 (batch, C, h, w) on 0-255 in, packed pictures out
                                (`engine.network.pack`), any size
    frame….xml, frame….bin      all that surrounds it in a frame graph, with a gap for the network

A `y` model has one frame graph; an `rgb` model has one for each matrix and range. None holds the weights
again: the network is put into the gap when the artifact is loaded.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from engine.config import AwsrnConfig, ColourKind
from engine.errors import InvalidArtifact, ModelNotFound
from engine.frame import Colour, Matrix, Precision

FORMAT = "livesr-artifact-1"
# What the graphs take and give; counted up when it changes. 1, which no manifest says: pictures, not packed.
LAYOUT = 2
MANIFEST = "manifest.json"
NET = "net.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`parity_db`: PSNR of luma against the float32 reference on real frames; None where it was not measured.
    `files`: SHA-256 of each other file. `tools`: versions of what built it."""

    config: AwsrnConfig
    precision: Precision
    backend: str
    checkpoint_sha256: str
    provenance: dict[str, Any]
    parity_db: float | None
    files: dict[str, str]
    tools: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"config": self.config.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    path: Path
    manifest: Manifest

    @property
    def net(self) -> Path:
        return self.path / NET

    def frame(self, colour: Colour) -> Path:
        return self.path / frame_file(self.manifest.config.colour, colour)


def frame_file(kind: ColourKind, colour: Colour) -> str:
    if kind == "y":
        return "frame.xml"
    return f"frame-{colour.matrix}-{'full' if colour.full_range else 'limited'}.xml"


def colours(kind: ColourKind) -> list[Colour]:
    """Those for which a model needs a frame graph of its own."""
    if kind == "y":
        return [Colour()]
    return [Colour(matrix=m, full_range=f) for m in get_args(Matrix) for f in (False, True)]


def write_manifest(path: Path, manifest: Manifest) -> None:
    fields = {"format": FORMAT, "layout": LAYOUT} | manifest.to_dict()
    (path / MANIFEST).write_text(json.dumps(fields, indent=2) + "\n")


def file_hashes(path: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.iterdir())
        if file.name != MANIFEST
    }


def open_artifact(path: Path) -> Artifact:
    """Reads and verifies. Raises ModelNotFound; InvalidArtifact names the file that is missing or changed."""
    if not path.is_dir():
        raise ModelNotFound(f"artifact {path} does not exist")
    if not (path / MANIFEST).is_file():
        raise InvalidArtifact(f"{path} is no artifact: it has no {MANIFEST}")
    try:
        fields = json.loads((path / MANIFEST).read_text())
        if fields.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        _check_layout(path, fields.pop("layout", 1))
        config = AwsrnConfig.from_dict(fields.pop("config"))
        manifest = Manifest(config=config, **fields)
    except InvalidArtifact:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise InvalidArtifact(f"{path / MANIFEST} is unreadable: {exc}") from exc
    if manifest.precision not in get_args(Precision):
        raise InvalidArtifact(f"{path / MANIFEST}: unknown precision {manifest.precision!r}")
    graphs = [NET, *(frame_file(config.colour, c) for c in colours(config.colour))]
    needed = {name for g in graphs for name in (g, g.removesuffix(".xml") + ".bin")}
    for name in sorted(needed | manifest.files.keys()):
        if name not in manifest.files:
            raise InvalidArtifact(f"{path / MANIFEST} lists no {name}")
        if not (path / name).is_file():
            raise InvalidArtifact(f"{path} lacks {name}")
        if hashlib.sha256((path / name).read_bytes()).hexdigest() != manifest.files[name]:
            raise InvalidArtifact(f"{path / name} is not the file that was built: its SHA-256 differs")
    return Artifact(path=path, manifest=manifest)


def _check_layout(path: Path, layout: Any) -> None:
    if layout != LAYOUT:
        raise InvalidArtifact(
            f"{path} has graphs of layout {layout}, where this version of livesr runs layout {LAYOUT}: "
            "build it anew from its checkpoint with `livesr build`"
        )
