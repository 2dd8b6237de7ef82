"""Lanes on a real GPU, beside each other and beside what else a process does there."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from engine.frame import GpuEngine, YuvFrame
from engine.load import load_engine
from engine.parity import LOWEST_DB, parity_db
from engine.sample_frames import DEFAULT, HEIGHT, WIDTH, sample_frames

pytestmark = pytest.mark.gpu
Load = Callable[..., GpuEngine]


@pytest.fixture
def frames() -> list[YuvFrame]:
    return [sample.yuv() for sample in sample_frames(DEFAULT)]


def results(engine: GpuEngine, frames: list[YuvFrame], turns: int, *, lanes: int = 2) -> list[YuvFrame]:
    """Each frame in turn, all lanes in flight."""
    ring, out = [engine.lane() for _ in range(lanes)], []
    for turn in range(turns + lanes):
        lane = ring[turn % lanes]
        if turn >= lanes:
            frame = lane.wait()
            out.append(YuvFrame(y=frame.y.copy(), u=frame.u.copy(), v=frame.v.copy()))
        if turn < turns:
            lane.submit(frames[turn % len(frames)])
    return out


def all_same(got: list[YuvFrame], expected: list[YuvFrame]) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(expected[turn % len(expected)], name))
        for turn, one in enumerate(got)
        for name in "yuv"
    )


@pytest.mark.parametrize("model", ["awsrn-sd-x2", "awsrn-live-large-x4"])
def test_networks_of_another_kind_or_scale(load: Load, frames: list[YuvFrame], model: str) -> None:
    """RGB in half: colour arithmetic that overflows, or a matrix of the wrong way, is tens of dB here. ×4: a
    graph, a sink or a pool whose size is taken for twice the frame's."""
    engine = load(WIDTH, HEIGHT, model=model)
    reference = load_engine(model, width=WIDTH, height=HEIGHT, backend="reference")
    assert parity_db(engine, reference, frames) >= LOWEST_DB["fp16"]
    [frame] = results(engine, frames, 1)
    assert frame.y.shape == (engine.spec.scale * HEIGHT, engine.spec.scale * WIDTH)
    lane = engine.surface_lane()
    lane.submit(frames[0])
    surface = lane.wait()
    assert (surface.width, surface.height) == frame.y.shape[::-1]


def test_two_streams_of_one_engine(load: Load, frames: list[YuvFrame]) -> None:
    """A lane's memory, stream or TensorRT context that two threads share gives one the other's picture."""
    engine = load(WIDTH, HEIGHT)
    expected = results(engine, frames, len(frames), lanes=1)
    got: dict[int, list[YuvFrame]] = {}

    def run(stream: int) -> None:
        mine = frames[stream:] + frames[:stream]
        got[stream] = results(engine, mine, 100)

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for stream in range(2):
        assert all_same(got[stream], expected[stream:] + expected[:stream])


def test_graphs_are_captured_beside_running_lanes(load: Load, frames: list[YuvFrame]) -> None:
    """Another stream begins, or changes its size. A capture that takes in other threads' work, or forbids it,
    ends theirs with a CUDA error or puts their frames into its graph."""
    engine = load(WIDTH, HEIGHT)
    expected = results(engine, frames, len(frames), lanes=1)
    stop, wrong, errors = threading.Event(), threading.Event(), list[BaseException]()
    rounds = 0

    def run() -> None:
        nonlocal rounds
        try:
            while not stop.is_set():
                if not all_same(results(engine, frames, 20), expected):
                    wrong.set()
                rounds += 1
        except BaseException as exc:  # whatever it is, it is what this test is about
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for width in (160, 192, 224, 256):
            other = load(width, HEIGHT)
            assert len(results(other, [cropped(frame, width) for frame in frames], 10)) == 10
    finally:
        stop.set()
        thread.join(120)
    assert not errors
    assert not wrong.is_set()
    assert rounds


def cropped(frame: YuvFrame, width: int) -> YuvFrame:
    planes = frame.y[:, :width], frame.u[:, : width // 2], frame.v[:, : width // 2]
    y, u, v = (np.ascontiguousarray(plane) for plane in planes)
    return YuvFrame(y=y, u=u, v=v)
