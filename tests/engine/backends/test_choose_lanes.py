"""The number of lanes, chosen on an engine whose stages take as long as they are told, by its own clock."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from engine.backends.cuda.choose_lanes import best, try_lanes
from engine.backends.cuda.measure import summed_up
from engine.errors import DeviceFailed
from engine.frame import EngineSpec, YuvFrame
from engine.performance import Performance
from engine.trials import Trial, most_streams, percentile, run_bursts, run_trial

FRAME = YuvFrame(
    y=np.zeros((32, 32), np.uint8), u=np.zeros((16, 16), np.uint8), v=np.zeros((16, 16), np.uint8)
)


SPEC = EngineSpec(
    model="timed",
    backend="test",
    precision="fp16",
    colour="y",
    scale=2,
    width=32,
    height=32,
    macs_per_frame=1,
    parity_db=None,
    checkpoint_sha256="",
)


@dataclass
class TimedEngine:
    """Three stages, each busy with one frame at a time, as copy engines and multiprocessors are."""

    stages_ms: tuple[float, ...]
    now_s: float = 0.0
    free_s: list[float] = field(default_factory=lambda: [0.0] * 3)
    spec: EngineSpec = SPEC

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def lane(self) -> "TimedLane":
        return TimedLane(self)


@dataclass
class TimedLane:
    engine: TimedEngine
    done_s: float = 0.0

    def submit(self, frame: YuvFrame) -> None:
        self.done_s = self.engine.now_s
        for index, stage_ms in enumerate(self.engine.stages_ms):
            self.done_s = max(self.done_s, self.engine.free_s[index]) + stage_ms / 1e3
            self.engine.free_s[index] = self.done_s

    def wait(self) -> YuvFrame:
        self.engine.now_s = max(self.engine.now_s, self.done_s)
        return FRAME


@pytest.mark.parametrize(
    ("stages_ms", "budget_ms", "lanes"),
    [
        ((1.0, 4.0, 1.0), 33.0, 2),  # a second one hides the copies; a third would only wait
        ((1.0, 4.0, 1.0), 7.0, 1),  # two frames in flight take 8 ms each
        ((3.0, 3.0, 3.0), 33.0, 3),  # a lane for each stage
        ((3.0, 3.0, 3.0), 5.0, 1),  # nothing keeps this budget: the least that can be done
        ((0.05, 5.0, 0.05), 33.0, 1),  # what there is to hide is less than three per cent
    ],
)
def test_the_fewest_lanes_that_are_fast_within_the_budget(
    stages_ms: tuple[float, ...], budget_ms: float, lanes: int
) -> None:
    engine = TimedEngine(stages_ms)
    assert best(try_lanes(engine.lane, FRAME, clock=engine.clock), budget_ms / 1e3).lanes == lanes


def test_no_more_lanes_are_tried_than_the_memory_takes() -> None:
    engine = TimedEngine((3.0, 3.0, 3.0))

    def make(room: list[None]) -> TimedLane:
        if not room:
            raise DeviceFailed("the GPU is out of memory while a lane was made")
        room.pop()
        return engine.lane()

    trials = try_lanes(partial(make, [None, None]), FRAME, clock=engine.clock)
    assert [trial.lanes for trial in trials] == [1, 2]
    with pytest.raises(DeviceFailed, match="out of memory"):
        try_lanes(partial(make, []), FRAME, clock=engine.clock)


def test_what_is_kept_of_the_trials_comes_back_from_a_manifest() -> None:
    engine = TimedEngine((1.0, 4.0, 1.0))
    lanes = summed_up(try_lanes(engine.lane, FRAME, clock=engine.clock), 3 << 20)
    assert (lanes.best, lanes.lane_bytes) == (2, 3 << 20)
    assert lanes.frame_ms[1] == pytest.approx(6, rel=0.02)
    assert lanes.frame_ms[2] == pytest.approx(4, rel=0.02)
    assert lanes.p99_ms[4] == pytest.approx(16, rel=0.02)
    whole = Performance(parity_db=60.5, engine_bytes=1 << 20, host=lanes, surface=lanes)
    assert Performance.from_dict(whole.to_dict()) == whole
    assert whole.memory_bytes(on_gpu=True) == 7 << 20


def test_a_trial_says_rate_and_latency() -> None:
    engine = TimedEngine((1.0, 4.0, 1.0))
    trial = run_trial([engine.lane() for _ in range(2)], FRAME, clock=engine.clock)
    assert trial.frames_per_s == pytest.approx(250, rel=0.02)
    assert (trial.lanes, trial.p50_s, trial.p99_s) == (2, pytest.approx(0.008), pytest.approx(0.008))


def test_a_rate_that_only_late_frames_reach_is_not_taken() -> None:
    trials = [
        Trial(lanes=1, frames_per_s=100, p50_s=0.010, p99_s=0.012),
        Trial(lanes=2, frames_per_s=150, p50_s=0.013, p99_s=0.020),
        Trial(lanes=3, frames_per_s=300, p50_s=0.010, p99_s=0.050),
    ]
    assert best(trials, 0.033).lanes == 2
    assert best(trials, 0.060).lanes == 3
    assert best(trials, 0.001).lanes == 1


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([7.0], 99) == 7.0


def test_bursts_show_how_many_streams_a_gpu_carries() -> None:
    """4 ms of computing a frame: seven fit between two frames of 30 fps with their copies, nine never do."""

    def p99_s(streams: int) -> float:
        engine = TimedEngine((1.0, 4.0, 1.0))
        lanes = [engine.lane() for _ in range(2)]
        return run_bursts(lanes, FRAME, streams, clock=engine.clock, sleep=engine.sleep)

    assert p99_s(1) == pytest.approx(0.006)
    assert p99_s(7) == pytest.approx(0.030)
    assert p99_s(9) > 0.1, "what is left of a burst makes the next one late"
    assert most_streams(20, p99_s, 0.033) == 7
    assert most_streams(5, p99_s, 0.033) == 5
    assert most_streams(20, p99_s, 0.005) == 0
