"""How fast an engine is, against this machine's peak and against the authors' network as they run it."""

import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.openvino.peak import MACS, peak_runner
from engine.config import paper_config
from engine.frame import Engine, EngineSpec, Precision
from engine.load import load_engine, load_net
from engine.shipped import zoo
from engine.trials import noise_frame

_PAPER_MODEL = re.compile(r"(awsrn(?:-s|-sd|-m)?)-x([2348])")
_WARM_UP_S = 0.5
_ROUND_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """`ms_per_frame` is the median of whole frames, planes in to planes out; the multiply-adds are those of
    the folded network alone, and `peak_gmac_per_s` is the best that large convolutions of that precision
    reached in the same run. `reference_ms_per_frame`: the authors' network, float tensor in and out."""

    spec: EngineSpec
    random_weights: bool
    frames: int
    ms_per_frame: float
    gmac_per_s: float
    peak_gmac_per_s: float | None  # None on the reference backend
    peak_rss_bytes: int
    torch_loaded: bool
    reference_ms_per_frame: float | None

    @property
    def frames_per_s(self) -> float:
        return 1e3 / self.ms_per_frame

    @property
    def speed_up(self) -> float | None:
        return self.reference_ms_per_frame and self.reference_ms_per_frame / self.ms_per_frame

    def to_dict(self) -> dict[str, Any]:
        share = self.peak_gmac_per_s and self.gmac_per_s / self.peak_gmac_per_s
        more = {"frames_per_s": self.frames_per_s, "share_of_peak": share, "speed_up": self.speed_up}
        return asdict(self) | more


def bench_engine(
    model: str,
    *,
    width: int,
    height: int,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    seconds: float = 5.0,
    against_reference: bool = False,
) -> Bench:
    """Measures for `seconds`: the engine, the reference where asked for, the machine's peak, a second each
    in turns. A paper's model that is not in the zoo (awsrn-s-x2 …) runs on random weights."""
    with ExitStack() as stack:
        checkpoint = random_checkpoint(model, stack)
        source = str(checkpoint or model)
        engine = load_engine(
            source, width=width, height=height, backend=backend, precision=precision, threads=threads
        )
        runs = [frame_runner(engine)]
        if against_reference:
            runs.append(_reference_runner(source, width, height, threads))
    spec = engine.spec
    assert spec.precision is not None
    if spec.backend == "openvino":
        runs.append(peak_runner(spec.precision, threads=threads))
    times = _in_turns(runs, seconds)
    ms = [1e3 * statistics.median(t) for t in times]
    peak = MACS / min(times[-1]) if spec.backend == "openvino" else None
    return Bench(
        spec=spec,
        random_weights=checkpoint is not None,
        frames=len(times[0]),
        ms_per_frame=ms[0],
        gmac_per_s=spec.macs_per_frame / ms[0] / 1e6,
        peak_gmac_per_s=peak and peak / 1e9,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        torch_loaded="torch" in sys.modules,
        reference_ms_per_frame=ms[1] if against_reference else None,
    )


def _in_turns(runs: list[Callable[[], None]], seconds: float) -> list[list[float]]:
    """Seconds of each call, the runs taking turns so that what else the machine does falls on all alike."""
    for run in runs:
        _repeat(run, _WARM_UP_S)
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while not times[-1] or time.perf_counter() < end:
        for run, taken in zip(runs, times, strict=True):
            taken += _repeat(run, min(_ROUND_S, seconds))
    return times


def _repeat(run: Callable[[], None], seconds: float) -> list[float]:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


def frame_runner(engine: Engine) -> Callable[[], None]:
    frame, lane = noise_frame(engine), engine.lane()

    def run() -> None:
        lane.submit(frame)
        lane.wait()

    return run


def _reference_runner(model: str, width: int, height: int, threads: int) -> Callable[[], None]:
    # torch: an artifact is measured without it.
    import torch

    if threads:
        torch.set_num_threads(threads)
    net = load_net(model, backend="reference")
    shape = (1, net.config.channels, height, width)
    x = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    def run() -> None:
        net.run(x)

    return run


def random_checkpoint(model: str, stack: ExitStack) -> Path | None:
    """A paper's model on random weights, for as long as the stack; None for any other."""
    match = _PAPER_MODEL.fullmatch(model)
    if match is None or model in zoo():
        return None
    # torch: an artifact is measured without it.
    import torch

    from engine.network.awsrn import Awsrn
    from engine.network.checkpoint import save_checkpoint

    torch.manual_seed(0)
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / f"{model}.safetensors"
    save_checkpoint(path, Awsrn(paper_config(match[1], int(match[2]))), {"weights": "random"})
    return path
