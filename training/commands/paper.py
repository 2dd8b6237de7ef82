"""`livesr paper`: judges the paper's networks as they were trained here, and writes the page about them."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.files import replace_file
from engine.sample_frames import DEFAULT as SAMPLES
from training.commands.evaluate import set_folder
from training.data.images import read_rgb
from training.judge.contenders import open_contender
from training.judge.evaluate import Result, evaluate_set
from training.judge.sets import SetFolder
from training.networks import load_network
from training.paper.figures import figure_5
from training.paper.page import page, plot_curves
from training.paper.runs import Reproduced, checkpoint_of, reproduce
from training.report.outputs import check_page
from training.report.plots import save_plot

RESULTS = "results.json"
PICTURE = SAMPLES / "08-roman-colosseum.webp"  # of figure 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", action="append", default=[], dest="models", metavar="MODEL",
        help="one of the paper's networks to judge, a shipped one or a checkpoint; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--set", type=set_folder, action="append", default=[], dest="sets", metavar="NAME=DIR[,LR_DIR]",
        help="to judge on, Set5 among them; may be repeated",
    )  # fmt: skip
    parser.add_argument("--note", metavar="TEXT", help="a sentence on the training data; it is kept")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="the page to write; a folder beside it has its pictures, and what was measured in results.json",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    check_page("--out", args.out)
    folder = args.out.with_suffix("")
    results = folder / RESULTS
    stored = _stored(results)
    if args.note is not None:
        stored["note"] = args.note
    for model in args.models:
        print(f"judging {model}", file=sys.stderr)
        _judge(model, args.sets, stored, folder)
        _keep(stored, results)
    networks, bicubic = _read(stored)
    if not networks:
        raise ValueError(f"--model must be given: {results} knows of no network yet")
    _keep(stored, results)
    if any(one.curve for one in networks):
        save_plot(plot_curves(networks, bicubic), folder / "curves.png", dpi=80)
    replace_file(args.out, written(stored, folder.name).encode())
    print(args.out)
    return 0


def _stored(results: Path) -> dict[str, Any]:
    """Raises ValueError where the file is not what this command has left."""
    empty: dict[str, Any] = {"note": "", "bicubic": {}, "networks": {}}
    if not results.exists():
        return empty
    try:
        stored: dict[str, Any] = empty | json.loads(results.read_text())
        _read(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        what_to_do = "restore it, or remove it and judge its networks again"
        raise ValueError(f"{results} is damaged ({type(exc).__name__}: {exc}): {what_to_do}") from exc
    return stored


def _keep(stored: dict[str, Any], results: Path) -> None:
    replace_file(results, (json.dumps(stored, indent=1) + "\n").encode())


def written(stored: dict[str, Any], folder: str) -> str:
    """The page that follows from what is stored."""
    return page(*_read(stored), stored["note"], folder)


def _read(stored: dict[str, Any]) -> tuple[list[Reproduced], dict[int, dict[str, Result]]]:
    networks = [Reproduced.from_dict(fields) for fields in stored["networks"].values()]
    bicubic = {
        int(scale): {name: Result(**result) for name, result in of_sets.items()}
        for scale, of_sets in stored["bicubic"].items()
    }
    return networks, bicubic


def _judge(model: str, sets: list[SetFolder], stored: dict[str, Any], folder: Path) -> None:
    found = reproduce(model, sets)
    stored["networks"][found.name] = found.to_dict()
    bicubic = open_contender("bicubic", found.scale)
    stored["bicubic"].setdefault(str(found.scale), {}).update(
        {each.name: asdict(evaluate_set(bicubic.upscale, found.scale, each)) for each in sets}
    )
    figure = figure_5(load_network(checkpoint_of(model)), read_rgb(PICTURE))
    folder.mkdir(parents=True, exist_ok=True)
    save_plot(figure, folder / f"figure5-{found.name}.png", dpi=60, greys=16)
