"""The part of `livesr build` that compiles TensorRT engines, one for each network, size and colour."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.artifact import colours
from engine.backends.require_gpu import require_gpu
from engine.backends.tensorrt.builds import ensure_artifact
from engine.backends.tensorrt.request import ANY_SIZE, PRECISIONS, BuildRequest, Sizes, Target
from engine.backends.tensorrt.store import TensorRtArtifact, artifacts_folder
from engine.backends.tensorrt.target import current_target
from engine.batches import BATCHES
from engine.errors import BackendUnavailable, ParityError
from engine.frame import Colour
from engine.network.checkpoint import load_checkpoint
from engine.parity import LOWEST_DB
from engine.shipped import find_checkpoint, shipped_checkpoint, zoo

COLOURS = {f"{c.matrix}-{'full' if c.full_range else 'limited'}": c for c in colours("rgb")}


def add_arguments(group: Any) -> None:
    group.add_argument(
        "--all",
        action="store_true",
        help="every model that ships, into the folder that the service looks in ($LIVESR_ARTIFACTS); without "
        "--size or --dynamic for every size up to 1920x1920, so that no stream has to wait for a build",
    )
    group.add_argument(
        "--size", type=_sizes, action="append", help="WIDTHxHEIGHT of the LR frames; may be repeated"
    )
    group.add_argument(
        "--dynamic", type=_sizes, help="one engine for all sizes: SMALLEST:TYPICAL:LARGEST, each WIDTHxHEIGHT"
    )
    group.add_argument(
        "--hardware-compatible",
        action="store_true",
        help="engines that run on every GPU from Ampere on, somewhat slower than a GPU's own",
    )
    group.add_argument(
        "--batch",
        type=int,
        choices=BATCHES,
        default=BATCHES[-1],
        help="most frames at once; of large ones it is fewer (default: %(default)s)",
    )
    group.add_argument(
        "--colour",
        choices=COLOURS,
        action="append",
        help="of rgb models; may be repeated (default: all four)",
    )
    group.add_argument("--timeout", type=float, default=1800, help="seconds for each engine (default: 1800)")


def run(args: argparse.Namespace) -> int:
    precision = args.precision or "fp16"
    if precision not in PRECISIONS:
        raise BackendUnavailable(f"backend='tensorrt' runs in {' or '.join(PRECISIONS)}, not in {precision}")
    if args.all == (args.checkpoint is not None or args.out is not None):
        raise ValueError(
            "build --backend tensorrt needs either --all or a checkpoint and the folder to write"
        )
    if not args.all and args.out is None:
        raise ValueError("build needs the folder to write")
    if not args.size and not args.dynamic and not args.all:
        raise ValueError("build --backend tensorrt needs --size or --dynamic")
    require_gpu("tensorrt")
    folder = artifacts_folder() if args.all else args.out
    target = current_target()
    if args.hardware_compatible:
        any_gpu = target.any_gpu()
        if any_gpu is None:
            raise BackendUnavailable(
                f"--hardware-compatible needs a GPU from Ampere on; here is {target.gpu}"
            )
        target = any_gpu
    artifacts = [
        ensure_artifact(request, folder, timeout_s=args.timeout, on_progress=_Progress(request))
        for request in requests(args, target)
    ]
    if args.json:
        print(json.dumps([{"path": str(artifact.path)} | artifact.manifest for artifact in artifacts]))
    else:
        for artifact in artifacts:
            print("\n".join(described(artifact)))
    lowest_db = LOWEST_DB[precision]
    if refused := [str(built.path) for built in artifacts if lowest_parity_db(built) < lowest_db]:
        raise ParityError(f"not used, being less than {lowest_db:.0f} dB from float32: {', '.join(refused)}")
    return 0


def described(artifact: TensorRtArtifact) -> Iterator[str]:
    """What was built, and what a stream will find."""
    yield f"{artifact.path}: {artifact.manifest['layers']} layers, built in {artifact.manifest['build_s']} s"
    for size in artifact.manifest["performance"]:
        found = artifact.performance(*Sizes.parse(size).typical)
        count, memory_mib = found.surface.best, found.memory_bytes(on_gpu=True) / 2**20
        times = f"{found.surface.frame_ms[count]:.2f} ms a frame, p99 {found.surface.p99_ms[count]:.2f} ms"
        yield f"  {size}: {found.parity_db:.1f} dB, {count} lanes, {times}, {memory_mib:.0f} MiB"


def lowest_parity_db(artifact: TensorRtArtifact) -> float:
    return min(float(found["parity_db"]) for found in artifact.manifest["performance"].values())


def requests(args: argparse.Namespace, target: Target) -> Iterator[BuildRequest]:
    paths: list[Path] = (
        [shipped_checkpoint(name) for name in zoo()] if args.all else [find_checkpoint(args.checkpoint)]
    )
    wanted = [*(args.size or []), *([args.dynamic] if args.dynamic else [])] or [ANY_SIZE]
    for path in paths:
        checkpoint = load_checkpoint(path)
        kind = checkpoint.config.colour
        names = args.colour or list(COLOURS)
        for colour in [COLOURS[name] for name in names] if kind == "rgb" else [Colour()]:
            for sizes in wanted:
                yield BuildRequest(
                    checkpoint=path,
                    checkpoint_sha256=checkpoint.sha256,
                    kind=kind,
                    colour=colour,
                    sizes=sizes,
                    batches=tuple(batch for batch in sizes.batches if batch <= args.batch),
                    precision=args.precision or "fp16",
                    target=target,
                )


class _Progress:
    """A line on stderr for each stage of a build."""

    def __init__(self, request: BuildRequest) -> None:
        self._request = request
        self._stage = ""

    def __call__(self, stage: str, elapsed_s: float) -> None:
        if stage != self._stage:
            self._stage = stage
            print(f"{self._request}: {elapsed_s:.0f} s, {stage}", file=sys.stderr, flush=True)


def _sizes(text: str) -> Sizes:
    try:
        return Sizes.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
