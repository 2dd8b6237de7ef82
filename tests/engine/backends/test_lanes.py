"""The lanes of GPU engines and the ring that drives them, on a simulated device that poisons its memory."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends.cuda.lanes import DeviceLane, FrameLane
from engine.errors import DeviceFailed
from engine.frame import Colour, DeviceFrame, Engine, Lane, YuvFrame
from server.wire.logs import get_logger
from server.worker.process.picture import ColourTags, Picture, PictureFormat, frame_from_planes, plane_view
from server.worker.process.pipeline import Pipeline
from tests.engine.backends.simulated_device import (
    SimulatedDevice,
    SimulatedEngine,
    SimulatedEvent,
    SimulatedStream,
    upscaled,
)

LOG = get_logger("test")
SIZES = [(32, 16), (16, 32), (48, 18)]
WIDTH, HEIGHT = SIZES[0]

seeds = st.integers(0, 2**32 - 1)
eagernesses = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
lane_counts = st.integers(1, 4)
threaded = settings(max_examples=40)
slow = settings(max_examples=15)  # threads that a failure leaves notice it within half a second

LoadEngine = Callable[[int, int, Colour], Engine]


def noise(number: int, width: int = WIDTH, height: int = HEIGHT) -> YuvFrame:
    rng = np.random.default_rng(number)
    y, u, v = (
        rng.integers(0, 256, shape, np.uint8)
        for shape in ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    )
    return YuvFrame(y=y, u=u, v=v)


def same(a: YuvFrame, b: YuvFrame) -> bool:
    return all(np.array_equal(p, q) for p, q in ((a.y, b.y), (a.u, b.u), (a.v, b.v)))


def in_turns(lanes: Sequence[Lane], frames: int) -> None:
    """Frames through the lanes in turns, all lanes in flight. Each result must be its own frame's, and stay
    so until its lane takes another."""
    held: dict[int, tuple[int, YuvFrame]] = {}
    for number in range(frames + len(lanes)):
        index = number % len(lanes)
        if number >= len(lanes):
            held[index] = number - len(lanes), lanes[index].wait()
        for source, result in held.values():
            assert same(result, upscaled(noise(source)))
        held.pop(index, None)
        if number < frames:
            frame = noise(number)
            lanes[index].submit(frame)
            for plane in (frame.y, frame.u, frame.v):
                plane[...] = 0xA5  # the frame is the caller's again


@threaded
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts)
def test_each_result_is_of_its_own_frame(seed: int, eagerness: float, lanes: int) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        engine = SimulatedEngine(device, WIDTH, HEIGHT)
        in_turns([engine.lane() for _ in range(lanes)], frames=12)


@threaded
@given(seed=seeds, eagerness=eagernesses)
def test_frames_of_the_device_and_of_the_host_take_turns(seed: int, eagerness: float) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        lane = SimulatedEngine(device, WIDTH, HEIGHT).lane()
        for number in range(6):
            frame = noise(number)
            uv = np.stack([frame.u, frame.v], axis=-1)
            surface = DeviceFrame(y=frame.y, uv=uv, width=WIDTH, height=HEIGHT)
            lane.submit(surface if number % 2 else frame)
            assert same(lane.wait(), upscaled(frame))


def test_a_frame_of_another_size_is_refused_and_the_lane_goes_on() -> None:
    with SimulatedDevice(0) as device:
        lane = SimulatedEngine(device, WIDTH, HEIGHT).lane()
        with pytest.raises(ValueError, match=r"a frame of 48×18 must be 32×16"):
            lane.submit(noise(0, 48, 18))
        surface = DeviceFrame(y=np.zeros((18, 48)), uv=np.zeros((9, 24, 2)), width=48, height=18)
        with pytest.raises(ValueError, match=r"a frame of 48×18 must be 32×16"):
            lane.submit(surface)
        lane.submit(noise(1))
        assert same(lane.wait(), upscaled(noise(1)))


def test_a_surface_of_odd_size_is_none() -> None:
    with pytest.raises(ValueError, match=r"self\.width = 47, self\.height = 18 must be even"):
        DeviceFrame(y=np.zeros((18, 47)), uv=np.zeros((9, 23, 2)), width=47, height=18)


def test_a_lane_out_of_step_is_our_bug() -> None:
    with SimulatedDevice(0) as device:
        lane = SimulatedEngine(device, WIDTH, HEIGHT).lane()
        with pytest.raises(AssertionError, match="wait without submit"):
            lane.wait()
        lane.submit(noise(0))
        with pytest.raises(AssertionError, match="submit before"):
            lane.submit(noise(1))


def test_no_two_lanes_compute_on_one_stream() -> None:
    """PyTorch has 32 streams, and gives out the first again as the 33rd."""
    with SimulatedDevice(0) as device:
        engine = SimulatedEngine(device, WIDTH, HEIGHT)
        lanes = [engine.lane() for _ in range(16)]  # as many as the settings allow
        assert len(device.streams) <= 32
        in_turns(lanes, frames=20)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    planes = noise(number, width, height)
    return Picture(
        format=PictureFormat(
            codec="test",
            pixel_format="yuv420p",
            width=width,
            height=height,
            fps=25,
            sample_aspect_ratio=(1, 1),
            tags=ColourTags(range=1, matrix=1, primaries=1, transfer=1),
        ),
        frame=frame_from_planes(planes, width, height),
        planes=planes,
        pts=number,
        duration=1,
        arrival_ns=number,
        demuxed_ns=number,
        decoded_ns=number,
    )


def simulated(device: SimulatedDevice) -> LoadEngine:
    return lambda width, height, _: SimulatedEngine(device, width, height)


class Run:
    """Pictures through a real pipeline. Every one that comes out must be what its own picture gives."""

    def __init__(
        self, load: LoadEngine, lanes: int, pictures: Sequence[Picture], *, live: bool = False, upto: int = -1
    ) -> None:
        self.out: list[int] = []
        self.drops: Counter[tuple[str, str]] = Counter()
        self._pictures = pictures
        self._upto = upto
        self.pipeline = Pipeline(
            produce=self._produce,
            load=load,
            lanes=lanes,
            consume=self._consume,
            on_drop=(lambda stage, reason: self.drops.update([(stage, reason)])) if live else None,
            log=LOG,
        )
        before = set(threading.enumerate())
        self.pipeline.start()
        self._threads = set(threading.enumerate()) - before

    def join(self) -> None:
        self.pipeline.join(timeout_s=20)
        assert not self.pipeline.running
        assert self.all_ended()

    def all_ended(self) -> bool:
        for thread in self._threads:
            thread.join(10)
        return not any(thread.is_alive() for thread in self._threads)

    def _produce(self, put: Callable[[Picture], None]) -> None:
        for item in self._pictures:
            put(item)

    def _consume(self, result: object) -> None:
        assert not self.out or result.picture.pts > self.out[-1], "out of order"
        y, u, v = (plane_view(result.frame, index) for index in range(3))
        assert same(YuvFrame(y=y, u=u, v=v), upscaled(result.picture.planes))
        self.out.append(result.picture.pts)
        if len(self.out) == self._upto:
            self.pipeline.abort()


@threaded
@given(
    seed=seeds, eagerness=eagernesses, lanes=lane_counts, changes=st.lists(st.sampled_from(SIZES), max_size=5)
)
def test_the_ring_keeps_order_and_content_through_changes_of_size(
    seed: int, eagerness: float, lanes: int, changes: list[tuple[int, int]]
) -> None:
    sizes = [size for change in changes for size in [change] * 4]
    pictures = [picture(number, *size) for number, size in enumerate(sizes)]
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        run = Run(simulated(device), lanes, pictures)
        run.join()
    assert run.out == list(range(len(pictures)))


@threaded
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts)
def test_live_the_ring_shows_or_counts_every_picture(seed: int, eagerness: float, lanes: int) -> None:
    pictures = [picture(number) for number in range(30)]
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        run = Run(simulated(device), lanes, pictures, live=True)
        run.join()
    assert len(run.out) + sum(run.drops.values()) == 30
    assert run.out[-1] == 29


@slow
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts, operation=st.integers(0, 80), late=st.booleans())
def test_a_device_that_fails_ends_the_ring_with_its_word(
    seed: int, eagerness: float, lanes: int, operation: int, late: bool
) -> None:
    """Wherever in the work it fails: while it computes, or when it is told to."""
    failing = {"fails_at": operation} if late else {"refuses_at": operation}
    pictures = [picture(number) for number in range(20)]
    with SimulatedDevice(seed, eagerness=eagerness, **failing) as device:
        run = Run(simulated(device), lanes, pictures)
        with pytest.raises(DeviceFailed, match="illegal address" if late else "launch refused"):
            run.join()
        assert run.all_ended()
    assert run.out == list(range(len(run.out)))


@threaded
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts, upto=st.integers(1, 8))
def test_an_abort_with_frames_in_flight_ends_every_thread(
    seed: int, eagerness: float, lanes: int, upto: int
) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        run = Run(simulated(device), lanes, [picture(number) for number in range(20)], upto=upto)
        run.join()
    assert run.out == list(range(upto))


# What the properties above must be able to see: lanes with one rule broken each.


class _Deaf(SimulatedStream):
    """A stream that does not hear of events."""

    def wait_for(self, event: SimulatedEvent) -> None:
        pass


class _DeafDevice(SimulatedDevice):
    def stream(self) -> SimulatedStream:
        stream = _Deaf(self)
        self.streams.append(stream)
        return stream


class _Hasty(DeviceLane):
    """A lane that gives its output out before it is there."""

    def wait(self) -> None:
        self._in_flight = ()


class _Twice(SimulatedEngine):
    """An engine whose lanes have one memory: it is used again before its output is taken."""

    def program(self, most: int = 1):
        if not hasattr(self, "_only"):
            self._only = super().program(most)
        return self._only


def broken_runs(kind: str, seeds: range) -> int:
    """How many runs of the property fail on lanes that are broken so."""
    failures = 0
    for seed in seeds:
        device_class = _DeafDevice if kind == "no event wait" else SimulatedDevice
        with device_class(seed, eagerness=0.3) as device:
            engine = (_Twice if kind == "early reuse" else SimulatedEngine)(device, WIDTH, HEIGHT)
            lane_class = _Hasty if kind == "early output" else DeviceLane
            lanes = [FrameLane(lane_class(device, engine.program()), engine.slot()) for _ in range(3)]
            try:
                in_turns(lanes, frames=12)
            except AssertionError:
                failures += 1
    return failures


@pytest.mark.parametrize("kind", ["no event wait", "early output", "early reuse"])
def test_the_properties_see_a_broken_lane(kind: str) -> None:
    assert broken_runs("none", range(10)) == 0
    assert broken_runs(kind, range(10)) >= 9


def test_the_ring_of_lanes_that_share_memory_is_seen() -> None:
    failures = 0
    for seed in range(5):
        with SimulatedDevice(seed, eagerness=0.3) as device:
            run = Run(lambda w, h, _, d=device: _Twice(d, w, h), 3, [picture(n) for n in range(12)])
            try:
                run.join()
            except AssertionError:
                failures += 1
            assert run.all_ended()
    assert failures >= 3, "only a thread that is never early would not be seen"
