"""`livesr build`: compile a checkpoint, into an artifact for the CPU or into TensorRT engines for a GPU."""

import argparse
import json
from pathlib import Path
from typing import get_args

from engine.build import build
from engine.commands import build_tensorrt
from engine.frame import Precision
from engine.progress import working
from engine.sample_frames import DEFAULT, sample_frames
from engine.shipped import find_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="a .safetensors checkpoint, or a model that ships"
    )
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        help="the artifact's folder; an artifact there is replaced. tensorrt: the folder of all engines",
    )
    parser.add_argument("--backend", choices=("openvino", "tensorrt"), help="default: openvino")
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="default: int8; tensorrt: fp16, or int8 if asked for"
    )
    parser.add_argument(
        "--frames",
        type=Path,
        default=DEFAULT,
        help="folder of images, or a video, to calibrate and measure on (default: twelve that ship)",
    )
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")
    build_tensorrt.add_arguments(parser.add_argument_group("tensorrt"))


def run(args: argparse.Namespace) -> int:
    if args.all or args.backend == "tensorrt":
        return build_tensorrt.run(args)
    if args.checkpoint is None or args.out is None:
        raise ValueError("build needs a checkpoint and the folder to write")
    with working(f"building {args.out}"):
        artifact = build(
            find_checkpoint(args.checkpoint), args.out, args.precision or "int8", sample_frames(args.frames)
        )
    manifest = artifact.manifest
    if args.json:
        print(json.dumps({"path": str(artifact.path)} | manifest.to_dict()))
    else:
        print(
            f"{artifact.path}: {manifest.precision}, {manifest.parity_db:.1f} dB from the float32 reference"
        )
    return 0
