"""`livesr prune`: what each AWMS branch is worth, removal by rule, fine-tuning, figures before and after."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.config import AwsrnConfig
from engine.network.checkpoint import load_checkpoint
from engine.shipped import find_checkpoint
from training.commands.train import add_data_arguments, packed
from training.networks import LoadedNetwork, load_network, save_network, without_branches
from training.prune import Rule, measure_branches
from training.recipes import fine_tune_recipe
from training.train import train
from training.validate import luma_psnr


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--remove", metavar="7,9", help="these kernels")
    parser.add_argument("--alpha-below", type=float, metavar="A", help="branches with |α| below A")
    parser.add_argument("--cost-below", type=float, metavar="DB", help="branches whose removal costs less")
    parser.add_argument("--iterations", type=int, default=4_000, help="of fine-tuning; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    add_data_arguments(parser)


def _counts(config: AwsrnConfig) -> dict[str, float]:
    pixels = 1280 * 720 / config.scale**2
    return {
        "parameters": config.parameters,
        "mult_adds": config.mult_adds,
        "merged_mult_adds": config.folded_macs_per_lr_pixel * pixels,
    }


def run(args: argparse.Namespace) -> int:
    if args.validation is None:
        raise ValueError("--validation must be given: pruning is judged on it")
    try:
        kernels = tuple(int(k) for k in args.remove.split(",")) if args.remove else ()
    except ValueError as exc:
        raise ValueError(f"--remove {args.remove!r} must be kernel sizes such as 7,9") from exc
    rule = Rule(kernels=kernels, alpha_below=args.alpha_below, cost_below_db=args.cost_below)
    checkpoint = load_checkpoint(find_checkpoint(args.checkpoint))
    trained = LoadedNetwork(
        config=checkpoint.config, network=checkpoint.network(), provenance=checkpoint.provenance
    )
    before_db, branches = measure_branches(trained, args.validation)
    if not args.json:
        for b in branches:
            print(f"{b.kernel}×{b.kernel}: α {b.alpha:+.4f}, its removal costs {b.cost_db:.3f} dB")
    gone = {b.kernel for b in branches if rule.removes(b)} | set(kernels)
    report: dict[str, Any] = {
        "branches": [asdict(b) for b in branches],
        "removed": sorted(gone),
        "before": _counts(checkpoint.config) | {"psnr_db": before_db},
    }
    if gone:
        story = checkpoint.provenance | {"pruned_from": checkpoint.sha256, "removed": sorted(gone)}
        report["after"] = _fine_tune(args, replace(without_branches(trained, gone), provenance=story))
    if args.json:
        print(json.dumps(report))
        return 0
    if not gone:
        print("nothing removed: no branch falls under the rule")
        return 0
    print(f"removed {sorted(gone)}; checkpoint {args.out / 'checkpoint.safetensors'}")
    for name in ("before", "after"):
        r = report[name]
        print(
            f"{name:<7} {r['parameters']:>9,} parameters  {r['mult_adds'] / 1e9:6.2f} G Mult-Adds"
            f"  {r['merged_mult_adds'] / 1e9:6.2f} G merged  {r['psnr_db']:.3f} dB"
        )
    return 0


def _fine_tune(args: argparse.Namespace, pruned: LoadedNetwork) -> dict[str, float]:
    assert isinstance(pruned.config, AwsrnConfig)
    recipe = fine_tune_recipe(pruned.config, max(1, args.iterations))
    recipe = replace(recipe, seed=args.seed)
    network = pruned.network
    cut_db = luma_psnr(network, recipe, args.validation)
    if args.iterations:
        pairs = packed(args, recipe)
        print(f"fine-tuning for {recipe.iterations} iterations", file=sys.stderr)
        result = train(
            recipe, pairs=pairs, run=args.out, validation=args.validation, initial=pruned
        ).checkpoint
        network = load_network(result).network
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        save_network(args.out / "checkpoint.safetensors", network, recipe.config, pruned.provenance)
    psnr_db = luma_psnr(network, recipe, args.validation)
    return _counts(pruned.config) | {"cut_psnr_db": cut_db, "psnr_db": psnr_db}
