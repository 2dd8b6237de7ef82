"""`livesr models`: measures the models that ship, and writes the page about them."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.artifact import open_artifact
from engine.files import replace_file
from engine.frame import Precision
from engine.load import ZOO, choose, zoo
from engine.network.checkpoint import load_checkpoint
from training.commands.evaluate import set_folder
from training.judge.contenders import Contender, open_contender
from training.judge.evaluate import judge, mean
from training.judge.sets import SetFolder, find, load
from training.report.models import Measured, Model, Quality, page

QUALITY = ZOO / "quality.json"
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", type=set_folder, action="append", default=[], dest="sets", metavar="NAME=DIR[,LR_DIR]",
        help="measure on these what has changed since it was last measured; default: nothing is measured",
    )  # fmt: skip
    parser.add_argument("--quality", type=Path, default=QUALITY, metavar="JSON", help="what was measured")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write")


def run(args: argparse.Namespace) -> int:
    stored: dict[str, Any] = json.loads(args.quality.read_text()) if args.quality.exists() else {}
    if args.sets:
        stored = _measured(stored, args.sets)
        replace_file(args.quality, (json.dumps(stored, indent=1) + "\n").encode())
    replace_file(args.out, written(stored).encode())
    print(args.out)
    return 0


def written(stored: dict[str, Any]) -> str:
    """The page that follows from the models that ship and what is stored of them."""
    models = []
    for name in zoo():
        checkpoint = load_checkpoint(ZOO / f"{name}.safetensors")
        compiled = ZOO / f"{name}.int8"
        fields = stored.get("models", {}).get(name)
        measured = Measured.from_dict(fields) if fields else None
        if measured and measured.checkpoint_sha256 != checkpoint.sha256:
            print(f"{name} has changed since it was measured: give --set", file=sys.stderr)
            measured = None
        models.append(
            Model(
                name=name,
                config=checkpoint.config,
                provenance=checkpoint.provenance,
                parity_db=open_artifact(compiled).manifest.parity_db if compiled.is_dir() else None,
                measured=measured,
            )
        )
    bicubic = {
        int(scale): {name: Quality(**figures) for name, figures in of_sets.items()}
        for scale, of_sets in stored.get("bicubic", {}).items()
    }
    return page(models, bicubic)


def _measured(stored: dict[str, Any], sets: list[SetFolder]) -> dict[str, Any]:
    """`stored`, with each model measured again whose weights, or whose sets, are others."""
    names = {folder.name for folder in sets}
    models, bicubic = {}, {}
    for name in zoo():
        checkpoint = load_checkpoint(ZOO / f"{name}.safetensors")
        before = stored.get("models", {}).get(name)
        if (
            before is not None
            and before["checkpoint_sha256"] == checkpoint.sha256
            and all(set(of_sets) == names for of_sets in before["sets"].values())
        ):
            models[name] = before
        else:
            print(f"measuring {name}", file=sys.stderr)
            of_model: dict[Precision, dict[str, Quality]] = {
                precision: _scores(open_contender(name, None, "openvino", precision), sets)
                for precision in PRECISIONS
            }
            models[name] = Measured(checkpoint_sha256=checkpoint.sha256, sets=of_model).to_dict()
    for scale in sorted({choose(name, "reference", None).config.scale for name in zoo()}):
        of_sets = _scores(open_contender("bicubic", scale), sets)
        bicubic[str(scale)] = {name: asdict(quality) for name, quality in of_sets.items()}
    return {"models": models, "bicubic": bicubic}


def _scores(contender: Contender, sets: list[SetFolder]) -> dict[str, Quality]:
    scores = {}
    for folder in sets:
        images = (load(file, contender.scale) for file in find(folder, contender.scale))
        judged = judge([contender.upscale], contender.scale, images)
        result = mean([(one.attempts[0].psnr_db, one.attempts[0].ssim) for one in judged])
        scores[folder.name] = Quality(images=result.images, psnr_db=result.psnr_db, ssim=result.ssim)
    return scores
