"""`livesr upscale IN OUT`: a video file with the pipeline of the live service, or an image."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from engine.frame import Colour, Engine
from engine.load import load_engine
from engine.progress import Progress
from server.offline.upscale_image import upscale_image_file
from server.offline.upscale_video import upscale_video
from server.settings import DEFAULT_MODEL
from server.wire.logs import get_logger, log_to_stderr

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", type=Path, help="video or image file")
    parser.add_argument("output", metavar="OUT", type=Path, help="video file, or .png for an image")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="zoo name, artifact or checkpoint (%(default)s)"
    )
    parser.add_argument("--backend", help="openvino or reference; default: the best of this machine")
    parser.add_argument("--precision", help="float32, bf16 or int8; default: the fastest that the model has")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: every core")
    parser.add_argument("--crf", type=int, default=18, help="video quality, 0 (lossless) to 51 (%(default)s)")
    parser.add_argument("--preset", default="medium", help="x264 preset (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Raises ValueError and FileNotFoundError, whose text is for the user."""
    _check_paths(args.input, args.output, force=args.force)
    image = args.input.suffix.lower() in IMAGES
    done = _upscale_image(args) if image else _upscale_video(args)
    if args.json:
        print(json.dumps(done))
    else:
        print(
            f"{args.output}: {done['width']}×{done['height']} by {done['model']} "
            f"({done['precision']}, {done['backend']}) in {done['seconds']:.1f} s"
        )
    return 0


def _check_paths(source: Path, target: Path, *, force: bool) -> None:
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    if target.exists() and source.samefile(target):
        raise ValueError(f"{target}: is the input itself")
    if target.is_dir():
        raise ValueError(f"{target}: is a folder")
    if target.exists() and not force:
        raise ValueError(f"{target}: exists; --force replaces it")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: no such folder")


def _upscale_image(args: argparse.Namespace) -> dict[str, Any]:
    started_s = time.monotonic()
    choice, size = upscale_image_file(
        args.input,
        args.output,
        model=args.model,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
    )
    return {
        "width": size[0],
        "height": size[1],
        "scale": choice.config.scale,
        "model": choice.name,
        "backend": choice.backend,
        "precision": choice.precision,
        "seconds": round(time.monotonic() - started_s, 3),
    }


def _upscale_video(args: argparse.Namespace) -> dict[str, Any]:
    if not 0 <= args.crf <= 51:
        raise ValueError(f"--crf={args.crf} must be from 0 to 51")

    def load(width: int, height: int, colour: Colour) -> Engine:
        return load_engine(
            args.model,
            width=width,
            height=height,
            colour=colour,
            backend=args.backend,
            precision=args.precision,
            threads=args.threads,
            lanes=0,  # as many as suit the engine
        )

    log_to_stderr(level="warning")
    bar = Progress("frames")
    try:
        done = upscale_video(
            args.input,
            args.output,
            load=load,
            lanes=0,  # as many as suit the engine
            crf=args.crf,
            preset=args.preset,
            progress=bar.show,
            log=get_logger(__name__),
        )
    finally:
        bar.end()
    for reason, count in done.dropped.items():
        print(f"livesr upscale: {args.input}: {count} packets gave no picture: {reason}", file=sys.stderr)
    return {
        "width": done.size[0],
        "height": done.size[1],
        "scale": done.spec.scale,
        "model": done.spec.model,
        "backend": done.spec.backend,
        "precision": done.spec.precision,
        "frames": done.frames,
        "packets_dropped": done.dropped,
        "seconds": round(done.seconds, 3),
        "frames_per_second": round(done.frames / done.seconds, 2),
    }
