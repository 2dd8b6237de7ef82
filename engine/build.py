"""From a checkpoint to an artifact."""

import platform
from importlib.metadata import version
from pathlib import Path

from engine.artifact import Artifact, Manifest, colours, file_hashes, frame_file, write_manifest
from engine.backends.openvino_export import export_frame, export_net
from engine.checkpoint import Checkpoint
from engine.fold import fold
from engine.frame import Precision
from engine.frame_net import frame_net


def convert(checkpoint: Checkpoint, precision: Precision, path: Path) -> Artifact:
    """Writes an artifact into the empty folder `path`, its parity not measured."""
    config = checkpoint.config
    net = fold(checkpoint.network())
    export_net(net, config.channels, path / "net.xml")
    for colour in colours(config.colour):
        export_frame(
            frame_net(net, config, colour), config.channels, path / frame_file(config.colour, colour)
        )
    manifest = Manifest(
        config=config,
        precision=precision,
        backend="openvino",
        checkpoint_sha256=checkpoint.sha256,
        provenance=checkpoint.provenance,
        parity_db=None,
        files=file_hashes(path),
        tools={
            "livesr": version("livesr"),
            "openvino": version("openvino"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    )
    write_manifest(path, manifest)
    return Artifact(path=path, manifest=manifest)
