"""`livesr evaluate`: PSNR and SSIM of a checkpoint, an artifact or plain bicubic, by the paper's protocol."""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from engine.load import load_net, upscale_image
from training.evaluate import Upscaler, evaluate
from training.resize import upscale_bicubic


def _named_set(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=DIR")
    return name, Path(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="shipped model, artifact, checkpoint, or 'bicubic' to compare with"
    )
    parser.add_argument("--scale", type=int, help="must be the model's own; says the scale of 'bicubic'")
    parser.add_argument(
        "--set", type=_named_set, action="append", required=True, dest="sets", metavar="NAME=DIR",
        help="folder of HR images, or one that holds them in HR/; may be given several times",
    )  # fmt: skip
    parser.add_argument("--backend", help="default: the best of this machine")
    parser.add_argument("--json", action="store_true")


def _upscaler(args: argparse.Namespace) -> tuple[Upscaler, int]:
    if args.model == "bicubic":
        if args.scale is None:
            raise ValueError("--scale must be given with --model bicubic")
        return partial(upscale_bicubic, scale=args.scale), args.scale
    net = load_net(args.model, backend=args.backend)
    if args.scale not in (None, net.config.scale):
        raise ValueError(f"--scale {args.scale} must be the scale of {args.model}, {net.config.scale}")
    return partial(upscale_image, net), net.config.scale


def run(args: argparse.Namespace) -> int:
    upscale, scale = _upscaler(args)
    results = {name: evaluate(upscale, scale, folder) for name, folder in args.sets}
    if args.json:
        sets = {name: asdict(result) for name, result in results.items()}
        print(json.dumps({"model": args.model, "scale": scale, "sets": sets}))
        return 0
    print(f"{args.model} ×{scale}")
    for name, result in results.items():
        print(f"{name:<12} {result.images:4} images  {result.psnr_db:6.2f} dB  SSIM {result.ssim:.4f}")
    return 0
