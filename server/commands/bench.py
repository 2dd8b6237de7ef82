"""`livesr bench`: how fast the engine is on this machine."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from engine.backends.require_gpu import require_gpu
from engine.errors import BackendUnavailable
from engine.frame import Precision
from engine.load import BACKENDS
from engine.measure.bench import Bench, bench_engine
from engine.measure.bench_batching import bench_batching
from engine.measure.bench_batching import describe as describe_batching
from engine.measure.compare import compare
from engine.measure.compare import describe as describe_comparison
from engine.measure.gpu_report import render
from engine.measure.profile import describe as describe_profile
from engine.measure.profile import profile_model
from engine.progress import working
from server.offline.bench_control import TURNS as CONTROL_TURNS
from server.offline.bench_control import ControlCost, bench_control
from server.offline.bench_control import describe as describe_control
from server.offline.bench_control import to_dicts as control_to_dicts
from server.offline.bench_pipeline import bench_pipeline, describe
from server.offline.bench_sharing import bench_sharing, to_dicts
from server.offline.bench_sharing import describe as describe_sharing
from server.settings import PipelineOptions
from server.wire.logs import log_to_stderr
from server.worker.ingest.open import DEMO_CLIP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="awsrn-live-x2",
        help="zoo model, artifact, checkpoint, or a paper's model (awsrn-s-x2) on random weights",
    )
    parser.add_argument("--size", type=_size, default=(640, 360), metavar="WxH", help="of the LR frame")
    parser.add_argument("--precision", choices=get_args(Precision))
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument(
        "--against",
        metavar="reference|MODEL",
        help="in turns with the authors' network (eager float32 PyTorch, weight norm in place), or with "
        "another model or artifact: medians, CPU and wall time, their ratio with its quartiles",
    )
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="in turns with a whole stream around the engine: decode, lanes, encode, socket",
    )
    parser.add_argument(
        "--batching",
        type=int,
        metavar="STREAMS",
        help="so many streams through one engine, in batches and in turns, and one through it and past it",
    )
    parser.add_argument(
        "--sharing",
        type=int,
        metavar="STREAMS",
        help="so many whole streams, each in a worker process of its own and all in one, in turns",
    )
    parser.add_argument(
        "--control",
        type=_counts,
        metavar="N,N…",
        help="what so many streams at once cost their gateway, with hosts that send no pictures",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="for --control: a plot of it, SVG or PNG (extra: train)"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="share of time and of the machine's peak by layer and type, from OpenVINO's counters",
    )
    parser.add_argument(
        "--gpu-report",
        type=Path,
        metavar="FILE",
        help="every model, size, engine and number of lanes on this machine's GPU, as a page of Markdown",
    )
    parser.add_argument("--clip", type=Path, default=DEMO_CLIP, help="for --pipeline (the demo clip)")
    parser.add_argument("--preset", default=default("preset"), help="x264's, for --pipeline (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="0: as the backend finds right")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    if args.gpu_report:
        return _write_gpu_report(args.gpu_report)
    turns = 3 if args.batching else 2 if args.pipeline or args.sharing or args.against else 1
    turns = CONTROL_TURNS * len(args.control) if args.control else turns
    with working("measuring", turns * args.seconds):  # loading comes on top
        measured = _measure(args)
    print(measured)
    return 0


def _measure(args: argparse.Namespace) -> str:
    """What was asked for, as text or JSON."""
    if args.pipeline:
        return _run_pipeline(args)
    if args.batching is not None:
        return _run_batching(args)
    if args.sharing is not None:
        return _run_sharing(args)
    if args.control is not None:
        return _run_control(args)
    if args.profile:
        return _run_profile(args)
    if args.against not in (None, "reference"):
        return _run_comparison(args)
    width, height = args.size
    result = bench_engine(
        args.model,
        width=width,
        height=height,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        seconds=args.seconds,
        against_reference=args.against is not None,
    )
    return json.dumps(result.to_dict()) if args.json else _describe(result)


def _run_batching(args: argparse.Namespace) -> str:
    if args.batching < 1:
        raise ValueError(f"--batching {args.batching}: must be at least 1 stream")
    width, height = args.size
    bench = bench_batching(
        args.model,
        streams=args.batching,
        width=width,
        height=height,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        wait_s=default("batch_wait_s"),
        seconds=args.seconds,
    )
    return json.dumps(bench.to_dict()) if args.json else describe_batching(bench)


def _run_sharing(args: argparse.Namespace) -> str:
    if args.sharing < 2:
        raise ValueError(f"--sharing {args.sharing}: must be at least 2 streams")
    width, height = args.size
    results = bench_sharing(
        args.model, width=width, height=height, streams=args.sharing, seconds=args.seconds
    )
    return json.dumps(to_dicts(results)) if args.json else describe_sharing(results)


def _run_control(args: argparse.Namespace) -> str:
    plot = _plot_to(args.plot) if args.plot else None
    costs = bench_control(args.control, args.seconds)
    if plot is not None:
        plot(costs)
    return json.dumps(control_to_dicts(costs)) if args.json else describe_control(costs)


def _plot_to(path: Path) -> Callable[[Sequence[ControlCost]], None]:
    """Raises ValueError before anything is measured."""
    try:
        # matplotlib: only a plot needs it.
        from server.offline.plot_control import check_name, plot_control
    except ModuleNotFoundError as exc:
        raise ValueError(f"--plot {path}: needs {exc.name}: pip install 'livesr[train]'") from exc
    check_name(path)
    return lambda costs: plot_control(costs, path)


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: each must be at least 1")
    return counts


def _run_profile(args: argparse.Namespace) -> str:
    if args.backend not in (None, "openvino"):
        raise BackendUnavailable(f"--profile reads OpenVINO's counters: not on backend={args.backend!r}")
    width, height = args.size
    profile = profile_model(
        args.model,
        width=width,
        height=height,
        precision=args.precision,
        threads=args.threads,
        seconds=args.seconds,
    )
    return json.dumps(profile.to_dict()) if args.json else describe_profile(profile)


def _run_comparison(args: argparse.Namespace) -> str:
    width, height = args.size
    comparison = compare(
        args.model,
        args.against,
        width=width,
        height=height,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        seconds=args.seconds,
    )
    return json.dumps(comparison.to_dict()) if args.json else describe_comparison(comparison)


def _write_gpu_report(path: Path) -> int:
    require_gpu("cuda")
    # torch: only a GPU's report needs it.
    from engine.measure.gpu_bench import bench_gpu

    log_to_stderr()
    path.write_text(render(bench_gpu()), encoding="utf-8")
    print(path)
    return 0


def _run_pipeline(args: argparse.Namespace) -> str:
    whole = bench_pipeline(
        args.model,
        clip=args.clip,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        lanes=default("lanes"),
        preset=args.preset,
        seconds=args.seconds,
    )
    return json.dumps(whole.to_dict()) if args.json else describe(whole)


def default(option: str) -> Any:
    """What the service does where nobody says otherwise."""
    return PipelineOptions.model_fields[option].default


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be WIDTHxHEIGHT, such as 640x360") from None
    return width, height


def _describe(result: Bench) -> str:
    spec, scale = result.spec, result.spec.scale
    weights = ", random weights" if result.random_weights else ""
    size = f"{spec.width}×{spec.height} → {scale * spec.width}×{scale * spec.height}"
    lines = [
        f"{spec.model}{weights} · {spec.backend} {spec.precision} · {size} · {result.frames} frames",
        f"  {result.ms_per_frame:.2f} ms/frame (p50), {result.frames_per_s:.1f} frames/s",
        f"  {result.gmac_per_s:.1f} GMAC/s",
    ]
    if result.peak_gmac_per_s is not None:
        share = result.gmac_per_s / result.peak_gmac_per_s
        lines[-1] += (
            f", {share:.0%} of this machine's peak of {result.peak_gmac_per_s:.0f} in {spec.precision}"
        )
    rss = f"  {result.peak_rss_bytes / 2**20:.0f} MiB peak RSS"
    lines.append(rss + (", PyTorch loaded" if result.torch_loaded else ""))
    if result.reference_ms_per_frame is not None:
        reference = f"{result.reference_ms_per_frame:.1f} ms/frame"
        lines.append(f"  {result.speed_up:.2f}× the authors' network in eager float32 PyTorch ({reference})")
    return "\n".join(lines)
