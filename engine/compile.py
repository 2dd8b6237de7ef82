"""A checkpoint's graphs written into a folder: folded, packed, exported, and for INT8 quantised."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from engine.artifact import NET, Artifact, Manifest, colours, file_hashes, frame_file, write_manifest
from engine.backends.openvino.export import export_frame, export_net
from engine.errors import BackendUnavailable
from engine.frame import Precision
from engine.net import Batch
from engine.network.checkpoint import Checkpoint
from engine.network.fold import fold
from engine.network.pack import pack
from engine.network.packed_frame import packed_frame_net


def compile_checkpoint(
    checkpoint: Checkpoint, precision: Precision, path: Path, calibration: Sequence[Batch]
) -> Artifact:
    """Makes the empty folder `path` an artifact whose parity is not measured. `calibration`: inputs of the
    bare network, all of one shape, which INT8 takes its ranges from. Raises BackendUnavailable."""
    if precision == "fp16":
        raise BackendUnavailable("openvino compiles for the CPU in float32, bf16 or int8, not in fp16")
    config = checkpoint.config
    net = pack(fold(checkpoint.network()))
    tools = ["livesr", "openvino", "torch"]
    if precision == "int8":
        # NNCF: only INT8 needs it.
        from engine.backends.openvino.quantise import quantise

        export_net(net, path / "float.xml")
        quantise(path / "float.xml", path / NET, calibration, float_tail=net.block == config.scale)
        (path / "float.xml").unlink()
        (path / "float.bin").unlink()
        tools.append("nncf")
    else:
        export_net(net, path / NET)
    for colour in colours(config.colour):
        frame = packed_frame_net(net, config, colour)
        export_frame(frame, path / frame_file(config.colour, colour))
    manifest = Manifest(
        config=config,
        precision=precision,
        backend="openvino",
        checkpoint_sha256=checkpoint.sha256,
        provenance=checkpoint.provenance,
        parity_db=None,
        files=file_hashes(path),
        tools={"python": platform.python_version()} | {tool: version(tool) for tool in tools},
    )
    write_manifest(path, manifest)
    return Artifact(path=path, manifest=manifest)
