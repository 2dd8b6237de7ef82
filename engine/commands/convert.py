"""`livesr convert`: make a checkpoint of a state dict that the authors of AWSRN released."""

import argparse
import json
from pathlib import Path

from engine.network.checkpoint import load_released, save_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("released", type=Path, help="a state dict (.pt) as the authors' code saves it")
    parser.add_argument("out", type=Path, help="the .safetensors checkpoint to write")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    if args.out.suffix != ".safetensors":
        raise ValueError(f"out={str(args.out)!r} must end in .safetensors")
    checkpoint = load_released(args.released)
    save_checkpoint(args.out, checkpoint.network(), checkpoint.provenance)
    config = checkpoint.config
    if args.json:
        found = {"path": str(args.out), "config": config.to_dict(), "parameters": config.parameters}
        print(json.dumps(found))
    else:
        shape = f"{config.lfbs} LFB of {config.awrus} AWRUs, n={config.features}, b={config.block_features}"
        print(f"{args.out}: ×{config.scale}, {shape}, {config.parameters:,} parameters")
    return 0
