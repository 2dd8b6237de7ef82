"""What an engine does on this GPU, measured before its first stream: parity, lanes, latency, memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from engine.backends import gate
from engine.backends.cuda.choose_lanes import best, try_lanes
from engine.backends.cuda.device import device_errors
from engine.backends.reference import ReferenceEngine
from engine.frame import Colour, DeviceFrame, Engine, GpuEngine, YuvFrame
from engine.network.checkpoint import Checkpoint
from engine.performance import LanePerformance, Performance
from engine.trials import DrivenLane, Trial, noise_frame


class MeasuredEngine(GpuEngine, Protocol):
    @property
    def weight_bytes(self) -> int:
        """Of the GPU's memory, once for all lanes."""
        ...


def measure_performance(engine: MeasuredEngine, checkpoint: Checkpoint, colour: Colour) -> Performance:
    """Takes some seconds of the whole GPU. Raises DeviceFailed, also where not even one lane fits in."""
    with device_errors("while the engine was measured"):
        return Performance(
            parity_db=round(measure_parity(engine, checkpoint, colour), 2),
            engine_bytes=engine.weight_bytes,
            host=_measure_lanes(engine.lane, noise_frame(engine)),
            surface=_measure_lanes(engine.surface_lane, noise_surface(engine)),
        )


def measure_parity(engine: GpuEngine, checkpoint: Checkpoint, colour: Colour) -> float:
    """PSNR in dB against the float32 reference on the same GPU. Raises DeviceFailed."""

    def reference(width: int, height: int) -> Engine:
        spec = replace(engine.spec, width=width, height=height)
        return ReferenceEngine(checkpoint, colour, spec, "cuda")

    with device_errors("while parity was measured"):
        parity = gate.measure(engine, reference, checkpoint.config.reach)
        torch.cuda.empty_cache()  # float32 needs several times what the engine does
    return parity


def noise_surface(engine: Engine) -> DeviceFrame:
    """NV12 of the engine's size in one buffer, as a decoder has it."""
    width, height = engine.spec.width, engine.spec.height
    nv12 = torch.randint(16, 236, (3 * height // 2, width), dtype=torch.uint8, device="cuda")
    uv = nv12[height:].view(height // 2, width // 2, 2)
    torch.cuda.synchronize()
    return DeviceFrame(y=nv12[:height], uv=uv, width=width, height=height)


def summed_up(trials: Sequence[Trial], lane_bytes: int) -> LanePerformance:
    return LanePerformance(
        best=best(trials).lanes,
        frame_ms={trial.lanes: round(1e3 / trial.frames_per_s, 3) for trial in trials},
        p99_ms={trial.lanes: round(1e3 * trial.p99_s, 3) for trial in trials},
        lane_bytes=lane_bytes,
    )


def _measure_lanes(make: Callable[[], DrivenLane], frame: YuvFrame | DeviceFrame) -> LanePerformance:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    trials = try_lanes(make, frame)
    # Reserved, not allocated: what a lane's graph works in is given back to PyTorch, yet nobody else's.
    lane_bytes = (torch.cuda.max_memory_reserved() - before) // len(trials)
    torch.cuda.empty_cache()
    return summed_up(trials, lane_bytes)
