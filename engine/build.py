"""From a checkpoint to an artifact, refused where its pictures are not those of the float32 reference."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.artifact import MANIFEST, Artifact, write_manifest
from engine.compile import compile_checkpoint
from engine.errors import InvalidArtifact, ParityError
from engine.frame import Precision
from engine.load import load_engine
from engine.network.checkpoint import load_checkpoint
from engine.parity import LOWEST_DB, parity_db
from engine.sample_frames import HEIGHT, WIDTH, SampleFrame


def build(checkpoint_path: Path, out: Path, precision: Precision, frames: Sequence[SampleFrame]) -> Artifact:
    """Compiles, measures, and only then puts the artifact at `out`, in the place of one that is there.

    Frames at even places calibrate INT8, those at odd places measure parity. Raises ParityError, and what
    `load_checkpoint` raises.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise InvalidArtifact(f"{out} exists and is no artifact; it will not be replaced")
    checkpoint = load_checkpoint(checkpoint_path)
    calibration = [frame.net_input(checkpoint.config.colour) for frame in frames[::2]]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        partial = Path(folder) / out.name
        partial.mkdir()
        manifest = compile_checkpoint(checkpoint, precision, partial, calibration).manifest
        engine = load_engine(partial, width=WIDTH, height=HEIGHT)
        reference = load_engine(checkpoint_path, width=WIDTH, height=HEIGHT, backend="reference")
        parity = parity_db(engine, reference, [frame.yuv() for frame in frames[1::2]])
        if not parity >= LOWEST_DB[precision]:
            raise ParityError(
                f"{checkpoint_path} in {precision} is {parity:.1f} dB from the float32 reference, "
                f"must be at least {LOWEST_DB[precision]:.0f} dB; nothing was built"
            )
        manifest = replace(manifest, parity_db=round(parity, 2))
        write_manifest(partial, manifest)
        if out.exists():
            os.replace(out, Path(folder) / "replaced")
        os.replace(partial, out)
    return Artifact(path=out, manifest=manifest)
