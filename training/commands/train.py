"""`livesr train`: the live luma network, or any of the paper's, on a folder of photographs."""

import argparse
from pathlib import Path

from engine.config import AwsrnConfig, live_config, paper_config
from training.train import Recipe, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="live", help="live (default), awsrn-s, awsrn-sd, awsrn-m or awsrn")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of HR images")
    parser.add_argument("--validation", type=Path, metavar="DIR", help="HR images to report PSNR on")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="state to resume from, and the result"
    )
    parser.add_argument("--iterations", type=int, default=16_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)


def config_of(model: str, scale: int) -> AwsrnConfig:
    return live_config(scale=scale) if model == "live" else paper_config(model, scale)


def run(args: argparse.Namespace) -> int:
    recipe = Recipe(
        config=config_of(args.model, args.scale),
        iterations=args.iterations,
        batch=args.batch,
        seed=args.seed,
    )
    print(train(recipe, data=args.data, validation=args.validation, run=args.run))
    return 0
