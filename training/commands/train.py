"""`livesr train`: any network here, by the paper's recipe or in a given number of minutes."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.config import live_config, paper_config
from engine.files import replace_file
from engine.shipped import find_checkpoint
from training.data.images import hr_folder, image_files, read_rgb
from training.data.pairs import DataConfig, PackedPairs
from training.devices import Devices
from training.judge.contenders import INTERPOLATIONS
from training.networks import ABLATIONS, BASELINES, NetworkConfig, load_network, named_config
from training.recipes import Recipe, paper_recipe, short_recipe
from training.searched import SEARCHED
from training.teacher import Teacher, load_teacher
from training.train import measure_iteration, train

RECIPES = {"paper": paper_recipe, "short": short_recipe}
LIVE = {
    "live-tiny": lambda **scale: live_config(block_features=16, awrus=1, **scale),
    "live": live_config,
    "live-half": lambda **scale: live_config(
        features=32, block_features=32, awrus=4, grid=2, context=32, **scale
    ),
    "live-light": lambda **scale: live_config(features=32, block_features=32, awrus=2, grid=2, **scale),
    "live-large": lambda **scale: live_config(block_features=64, awrus=5, context=32, **scale),
}
PAPER = ("awsrn-s", "awsrn-sd", "awsrn-m", "awsrn")
MODELS = tuple(name for name in (*LIVE, *PAPER, *BASELINES, *ABLATIONS) if name not in INTERPOLATIONS)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="HR images or videos")
    parser.add_argument("--lr-data", type=Path, metavar="DIR", help="LR made by somebody else, DIV2K's names")
    parser.add_argument(
        "--degrade", choices=("bicubic", "h264", "live"), default="bicubic", help="how LR is made"
    )
    parser.add_argument("--validation", type=Path, metavar="DIR", help="HR images to report PSNR-Y on")
    # Not --run: torchrun takes that for an abbreviation of its own.
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="state to resume, and result")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="packed pictures; default: in --out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", choices=RECIPES, default="paper")
    parser.add_argument("--model", default="awsrn", help=f"one of {', '.join(MODELS)} (default: awsrn)")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument(
        "--kernels", metavar="3,5", help="branches of an AWSRN's AWMS, if not the model's own"
    )
    parser.add_argument("--iterations", type=int, help="if not the recipe's own")
    parser.add_argument("--minutes", type=float, help="as many iterations as fit, measured before the start")
    parser.add_argument(
        "--initial", type=Path, metavar="CHECKPOINT", help="weights to begin with; or a model that ships"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        action="append",
        dest="teachers",
        metavar="CHECKPOINT",
        help="larger trained network to learn from as well (distillation); of several, each patch has one",
    )
    parser.add_argument(
        "--teacher-weight",
        type=float,
        metavar="WEIGHT",
        help="of being unlike the teacher, beside the loss (default: 1)",
    )
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument(
        "--loss", choices=("L1", "L2", "PSNR"), help="PSNR: each patch's, in dB (default: L1)"
    )
    parser.add_argument(
        "--detail", type=float, metavar="WEIGHT", help="add this of the visible detail that is lost"
    )
    parser.add_argument(
        "--lanczos",
        type=float,
        metavar="WEIGHT",
        help="add this of what is further from the original than Lanczos would be",
    )
    parser.add_argument(
        "--collapsible",
        type=int,
        metavar="WIDTH",
        help="convolutions so wide in training, collapsed after it",
    )
    parser.add_argument(
        "--gradient-norm", type=float, metavar="NORM", help="larger gradients are scaled down"
    )
    parser.add_argument(
        "--qat",
        action="store_true",
        help="quantisation-aware: go on from --initial, computing as its INT8 artifact will",
    )
    parser.add_argument("--bf16", action="store_true", help="BF16 arithmetic with float32 weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--evaluate-every", type=int, metavar="N", help="iterations from one look at --validation to the next"
    )
    parser.add_argument(
        "--profile", action="store_true", help="100 iterations, then seconds and waiting share"
    )
    add_data_arguments(parser)


def config_of(model: str, scale: int, kernels: str | None) -> NetworkConfig:
    """Raises ValueError naming a model that is unknown or has nothing to train, or kernels that aren't a list
    of sizes."""
    if model not in (*MODELS, *SEARCHED):
        raise ValueError(f"--model {model} must be one that is trained: {', '.join(MODELS)}")
    if model not in LIVE and model not in PAPER:
        return named_config(model, scale)
    config = LIVE[model](scale=scale) if model in LIVE else paper_config(model, scale)
    if kernels is None:
        return config
    try:
        return replace(config, kernels=tuple(int(k) for k in kernels.split(",")))
    except ValueError as exc:
        raise ValueError(f"--kernels {kernels!r} must be odd sizes such as 3,5") from exc


def packed(args: argparse.Namespace, recipe: Recipe) -> PackedPairs:
    """The run's pictures, packed on the first call."""
    data = DataConfig(
        folder=args.data, scale=recipe.config.scale, degrade=args.degrade, lr_folder=args.lr_data
    )
    return PackedPairs(data, args.cache or args.out / "cache", lr_patch=recipe.lr_patch)


def run(args: argparse.Namespace) -> int:
    recipe = RECIPES[args.recipe](config_of(args.model, args.scale, args.kernels))
    names = (
        "iterations", "learning_rate", "batch", "loss", "detail", "lanczos", "collapsible", "gradient_norm",
        "evaluate_every",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names}
    recipe = replace(
        recipe,
        seed=args.seed,
        bf16=args.bf16,
        qat=args.qat,
        **{k: v for k, v in given.items() if v is not None},
    )
    if args.qat and not args.initial:
        raise ValueError("--qat goes on from a trained network: --initial must be given")
    teachers = [load_teacher(find_checkpoint(path), recipe.config) for path in args.teachers or ()]
    if teachers:
        recipe = replace(recipe, teacher=1.0 if args.teacher_weight is None else args.teacher_weight)
    elif args.teacher_weight is not None:
        raise ValueError(f"--teacher-weight {args.teacher_weight} needs a --teacher")
    initial = load_network(find_checkpoint(args.initial)) if args.initial else None
    if args.validation:
        _check_validation(args.validation)
    pairs = packed(args, recipe)
    if args.minutes is not None:
        recipe = fit_minutes(recipe, pairs, args.out, args.minutes, teachers)
    if args.profile:
        done = train(recipe, pairs=pairs, run=args.out, teachers=teachers, stop_after=100)
        share = done.waiting_s / done.iteration_s
        print(f"{done.iteration_s:.4f} s/iteration, {share:.1%} of it waiting for data")
        return 0
    done = train(
        recipe,
        pairs=pairs,
        run=args.out,
        validation=args.validation,
        initial=initial,
        teachers=teachers,
    )
    print(done.checkpoint)
    return 0


def _check_validation(folder: Path) -> None:
    """The first look at it may come after hours."""
    try:
        for file in image_files(hr_folder(folder)):
            read_rgb(file)
    except ValueError as exc:
        raise ValueError(f"--validation: {exc}") from exc


def fit_minutes(
    recipe: Recipe,
    pairs: PackedPairs,
    run_folder: Path,
    minutes: float,
    teachers: Sequence[Teacher] = (),
) -> Recipe:
    """The recipe with as many iterations as fit; a resumed run keeps the number it began with."""
    note = run_folder / "iterations.txt"
    if not note.exists():
        if not minutes > 0:
            raise ValueError(f"--minutes {minutes} must be greater than zero")
        iteration_s = measure_iteration(recipe, pairs, teachers)
        devices = Devices()
        iterations = devices.agreed(max(recipe.save_every, int(minutes * 60 / iteration_s)))
        if devices.rank == 0:
            run_folder.mkdir(parents=True, exist_ok=True)
            replace_file(note, str(iterations).encode())
            print(f"{iterations} iterations", file=sys.stderr)
        return replace(recipe, iterations=iterations)
    return replace(recipe, iterations=int(note.read_text()))
