"""`livesr build`: compile a checkpoint into an artifact."""

import argparse
import json
from pathlib import Path
from typing import get_args

from engine.build import build
from engine.frame import Precision
from engine.sample_frames import DEFAULT, sample_frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a .safetensors checkpoint")
    parser.add_argument("out", type=Path, help="the artifact's folder; an artifact there is replaced")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument(
        "--frames",
        type=Path,
        default=DEFAULT,
        help="folder of images, or a video, to calibrate and measure on (default: twelve that ship)",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    artifact = build(args.checkpoint, args.out, args.precision, sample_frames(args.frames))
    manifest = artifact.manifest
    if args.json:
        print(json.dumps({"path": str(artifact.path)} | manifest.to_dict()))
    else:
        print(
            f"{artifact.path}: {manifest.precision}, {manifest.parity_db:.1f} dB from the float32 reference"
        )
    return 0
