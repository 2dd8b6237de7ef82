"""`livesr capacity`: how many pixels a second this machine carries, by network."""

import argparse
import json
import math

from engine.machine import cpu
from engine.measure.costs import load_costs, store_costs
from engine.progress import working
from engine.shipped import zoo
from server.gateway.placement.nodes import MEGAPIXELS
from server.offline.cost import measure_cost
from server.settings import Limits, PipelineOptions
from server.wire.messages import BICUBIC

_WIDTH, _HEIGHT, _FPS = 640, 360, 25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        dest="models",
        help="may be repeated (default: all that ship, and bicubic)",
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is known")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--ray",
        action="store_true",
        help="what this machine has for hosts of livesr, for `ray start --resources`",
    )


def run(args: argparse.Namespace) -> int:
    if args.ray:
        args.models = [BICUBIC]
    models = args.models or [*zoo(), BICUBIC]
    for model in models:
        if model != BICUBIC and model not in zoo():
            raise ValueError(f"--model {model!r}: must be one of {', '.join(zoo())}, or {BICUBIC}")
    known = {} if args.fresh else load_costs()
    preset = str(PipelineOptions.model_fields["preset"].default)
    measured: dict[str, float] = {}
    for model in models:
        if model not in known:
            with working(f"measuring {model}"):
                measured[model] = measure_cost(model, preset)
    if measured:
        store_costs(measured)
    costs = {model: (known | measured)[model] for model in models}
    if args.ray:
        usable_cores = cpu().cores * float(Limits.model_fields["usable_share"].default)
        print(json.dumps({MEGAPIXELS: math.floor(usable_cores / costs[BICUBIC])}))  # Ray takes whole numbers
        return 0
    if args.json:
        print(json.dumps({"cores": cpu().cores, "cpu_s_per_megapixel": costs}))
        return 0
    print(f"{cpu().model}, {cpu().cores} cores; decoded, upscaled and encoded, by CPU time")
    print(f"{'network':<32}{'ms a frame':>12}{'Mpixel/s':>10}{f'streams {_WIDTH}×{_HEIGHT}@{_FPS}':>24}")
    for model, cost in sorted(costs.items(), key=lambda item: item[1]):
        frame = _WIDTH * _HEIGHT / 1e6
        rate = cpu().cores / cost
        print(f"{model:<32}{cost * frame * 1e3:>12.1f}{rate:>10.2f}{rate / (frame * _FPS):>24.1f}")
    return 0
