"""`livesr export`: a model as ONNX, for VapourSynth, mpv and whatever else runs it."""

import argparse
import json
from pathlib import Path

from engine.artifact import Artifact
from engine.load import choose
from engine.onnx_export import export_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model that ships, or a .safetensors checkpoint")
    parser.add_argument("--onnx", type=Path, required=True, metavar="OUT", help="the .onnx file to write")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    if args.onnx.suffix != ".onnx":
        raise ValueError(f"--onnx {str(args.onnx)!r} must end in .onnx")
    if not args.onnx.parent.is_dir():
        raise ValueError(f"--onnx {args.onnx}: {args.onnx.parent} is no folder")
    choice = choose(args.model, "reference", None)
    assert not isinstance(choice.source, Artifact)
    try:
        differences = export_onnx(choice.source, args.onnx)
    except ModuleNotFoundError as exc:
        raise ValueError(f"this needs {exc.name}: pip install 'livesr[train,onnx]'") from exc
    config = choice.config
    if args.json:
        found = {"path": str(args.onnx), "scale": config.scale, "colour": config.colour}
        print(json.dumps(found | {"largest_difference": differences}))
        return 0
    what = "luma, black 0, white 1" if config.colour == "y" else "RGB, 0 to 1"
    checked = ", ".join(f"{runtime} {most:.1e}" for runtime, most in differences.items())
    print(f"{args.onnx}: ×{config.scale}, {what}; largest difference from PyTorch: {checked}")
    return 0
