"""`livesr ablate`: the paper's tables 1-4 at any budget, and figures 4 and 5 of a trained checkpoint."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from training.commands.train import RECIPES, add_data_arguments, fit_minutes, packed
from training.data.images import read_rgb
from training.devices import Devices
from training.judge.sets import SetFolder, find
from training.networks import NetworkConfig, load_network, named_config
from training.paper.ablate import Row, ablate, as_table, networks, removals
from training.paper.ablation_tables import SCALE, TABLES
from training.paper.figures import figure_4, figure_5
from training.report.plots import save_plot
from training.train import train


def _named_set(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=DIR")
    return name, Path(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, table in TABLES.items():
        _add_table_arguments(kinds.add_parser(name, help=table.title, description=table.title))
    text = "table 4 of a trained checkpoint: what each AWMS branch is worth"
    branches = kinds.add_parser("branches", help=text, description=text)
    branches.add_argument("checkpoint", type=Path)
    _add_set_argument(branches, required=True)
    for name, text in (
        ("figure4", "λ of each AWRU over depth"),
        ("figure5", "the outputs of AWMS' branches"),
    ):
        figure = kinds.add_parser(name, help=text, description=text)
        figure.add_argument("checkpoint", type=Path)
        figure.add_argument("out", type=Path, metavar="OUT.png")
        if name == "figure5":
            figure.add_argument("--image", type=Path, required=True, help="the picture to enlarge")


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", choices=RECIPES, default="short")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--iterations", type=int, help="of each network, if not the recipe's own")
    budget.add_argument(
        "--minutes", type=float, help="for the table's first network; the others get as many iterations"
    )
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=0)
    _add_set_argument(parser)
    add_data_arguments(parser)


def _add_set_argument(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--set", type=_named_set, action="append", dest="sets", metavar="NAME=DIR", required=required,
        help="HR images to judge on; may be given several times (default: the validation folder)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    match args.what:
        case "figure4":
            save_plot(figure_4(load_network(args.checkpoint)), args.out)
        case "figure5":
            save_plot(figure_5(load_network(args.checkpoint), read_rgb(args.image)), args.out)
        case "branches":
            rows = list(removals(load_network(args.checkpoint), dict(args.sets)))
            _say(args, "Table 4: AWMS branches taken out", rows, "paper: AWSRN-B, Set5 ×2, fully trained")
        case _:
            _table(args)
    return 0


def _table(args: argparse.Namespace) -> None:
    sets: dict[str, Path] = dict(args.sets or ())
    if args.validation and not sets:
        sets = {args.validation.name: args.validation}
    if not sets:
        raise ValueError("--set or --validation must be given: the networks are judged on it")
    for name, folder in sets.items():
        find(
            SetFolder(name=name, hr=folder), SCALE
        )  # a wrong folder is said now, not after hours of training
    given = {name: getattr(args, name) for name in ("iterations", "batch") if getattr(args, name) is not None}

    def train_network(name: str, config: NetworkConfig) -> Path:
        recipe = replace(RECIPES[args.recipe](config), seed=args.seed, **given)
        pairs = packed(args, recipe)
        if args.minutes is not None:
            recipe = fit_minutes(recipe, pairs, args.out, args.minutes)
        # One folder for each network: the tables share them, and a finished one is not trained again.
        print(f"training {name}", file=sys.stderr)
        return train(recipe, pairs=pairs, run=args.out / name, validation=args.validation).checkpoint

    table = TABLES[args.what]
    if Devices().rank:
        # One of several processes: it trains along, the first one judges and prints.
        for name in networks(table):
            train_network(name, named_config(name, SCALE))
        return
    rows = list(ablate(table, train_network, sets))
    _say(args, table.title, rows, f"paper: PSNR-Y in dB, {table.paper_psnr}, fully trained")


def _say(args: argparse.Namespace, title: str, rows: list[Row], note: str) -> None:
    if args.json:
        print(json.dumps({"table": args.what, "title": title, "rows": [asdict(row) for row in rows]}))
    else:
        print(f"{title}\n{as_table(rows, note).text()}", end="")
