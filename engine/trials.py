"""Driving an engine's lanes as a service would, with a clock in hand: as fast as they go, or in bursts."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engine.frame import DeviceFrame, Engine, YuvFrame

FPS = 30.0
BUDGET_S = 1 / FPS  # a frame that takes longer makes the next one wait


class DrivenLane(Protocol):
    """A lane of whatever kind, of whose results only their time matters."""

    def submit(self, frame: Any) -> None: ...

    def wait(self) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An engine driven as fast as it goes. Latency: from `submit` to the end of `wait`."""

    lanes: int
    frames_per_s: float
    p50_s: float
    p99_s: float


def run_trial(
    lanes: Sequence[DrivenLane],
    frame: YuvFrame | DeviceFrame,
    *,
    seconds: float = 0.3,
    frames: int = 20,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """The lanes in turns, all in flight, for so long and at least so many frames. The first round, which
    starts all at once, does not count."""
    flying: deque[tuple[DrivenLane, float]] = deque()

    def submit(lane: DrivenLane) -> None:
        flying.append((lane, clock()))
        lane.submit(frame)

    def turn() -> float:
        lane, submitted = flying.popleft()
        lane.wait()
        latency = clock() - submitted
        submit(lane)
        return latency

    for lane in lanes:
        submit(lane)
    for _ in lanes:
        turn()
    latencies: list[float] = []
    start = clock()
    while clock() < start + seconds or len(latencies) < frames:
        latencies.append(turn())
    elapsed = clock() - start
    for lane, _ in flying:
        lane.wait()
    return Trial(
        lanes=len(lanes),
        frames_per_s=len(latencies) / elapsed,
        p50_s=percentile(latencies, 50),
        p99_s=percentile(latencies, 99),
    )


def run_bursts(
    lanes: Sequence[DrivenLane],
    frame: YuvFrame | DeviceFrame,
    streams: int,
    *,
    fps: float = FPS,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Latency, p99 in seconds, when frames of so many streams arrive all at once, `fps` times a second: no
    arrangement of the streams is worse. From a frame's due time, so that falling behind shows."""
    latencies: list[float] = []
    flying: deque[tuple[DrivenLane, float]] = deque()

    def collect() -> DrivenLane:
        lane, due = flying.popleft()
        lane.wait()
        latencies.append(clock() - due)
        return lane

    start, free = clock(), list(lanes)
    for burst in range(math.ceil(seconds * fps)):
        due = start + burst / fps
        sleep(max(0.0, due - clock()))
        for _ in range(streams):
            lane = free.pop() if free else collect()
            flying.append((lane, due))
            lane.submit(frame)
        while flying:
            free.append(collect())
    return percentile(latencies, 99)


def most_streams(limit: int, p99_s: Callable[[int], float], budget_s: float = BUDGET_S) -> int:
    """The largest number of streams, up to `limit`, whose p99 keeps the budget; more never take less time."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if p99_s(middle) <= budget_s:
            low = middle
        else:
            high = middle - 1
    return low


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of them that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def noise_frame(engine: Engine) -> YuvFrame:
    rng = np.random.default_rng(0)
    height, width = engine.spec.height, engine.spec.width
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    y, u, v = (rng.integers(16, 236, shape, np.uint8) for shape in shapes)
    return YuvFrame(y=y, u=u, v=v)
