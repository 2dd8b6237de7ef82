"""Streams that share an engine on the simulated device: each with a pipeline of its own, as in a worker."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends.cuda.lanes import DeviceLane
from engine.batcher import Batcher, Ticket
from engine.errors import DeviceFailed
from engine.frame import BatchEngine, DeviceFrame, Engine, FillingLane, YuvFrame
from engine.share import SharedEngine
from tests.engine.backends.simulated_device import SimulatedDevice, SimulatedEngine, SimulatedSlot, upscaled
from tests.engine.backends.test_lanes import (
    HEIGHT,
    WIDTH,
    Run,
    eagernesses,
    in_turns,
    lane_counts,
    noise,
    picture,
    same,
    seeds,
)
from tests.server.worker.small_engine import DoublingEngine

threaded = settings(max_examples=25)
waits_s = st.sampled_from([0.0, 0.001])


class Counted(SimulatedEngine):
    """Knows the batches that it was given."""

    def __init__(self, device: SimulatedDevice, lanes: int) -> None:
        super().__init__(device, WIDTH, HEIGHT, lanes)
        self.sizes: list[int] = []

    def batch_lane(self, most: int) -> DeviceLane[SimulatedSlot]:
        lane, submit = super().batch_lane(most), DeviceLane.submit

        def counted(slots: Sequence[SimulatedSlot]) -> None:
            self.sizes.append(len(slots))
            submit(lane, slots)

        lane.submit = counted  # type: ignore[method-assign]
        return lane


def stream(shared: SharedEngine, number: int, *, frames: int, upto: int = -1, wait_s: float = 0.0) -> Run:
    """A stream through the shared engine; each has other pictures."""
    return begun(shared.join(wait_s), number, frames=frames, upto=upto)


def begun(engine: Engine, number: int, *, frames: int, upto: int = -1) -> Run:
    pictures = [picture(1000 * number + n) for n in range(frames)]
    return Run(lambda *_: engine, 2, pictures, upto=upto)


@threaded
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts, streams=st.integers(1, 4), wait_s=waits_s)
def test_each_stream_gets_its_own_pictures_in_order(
    seed: int, eagerness: float, lanes: int, streams: int, wait_s: float
) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        shared = SharedEngine(Counted(device, lanes))
        runs = [stream(shared, number, frames=12, wait_s=wait_s) for number in range(streams)]
        for run in runs:
            run.join()
    for number, run in enumerate(runs):
        assert run.out == [1000 * number + n for n in range(12)]


@threaded
@given(seed=seeds, eagerness=eagernesses, lanes=lane_counts, upto=st.integers(1, 8))
def test_a_stream_that_leaves_takes_nobody_along(seed: int, eagerness: float, lanes: int, upto: int) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        shared = SharedEngine(Counted(device, lanes))
        leaving = stream(shared, 0, frames=20, upto=upto)
        staying = [stream(shared, number, frames=20) for number in (1, 2)]
        leaving.join()
        for run in staying:
            run.join()
    assert [len(run.out) for run in staying] == [20, 20]


def test_a_lane_left_with_its_frame_in_flight_holds_nobody_up() -> None:
    with SimulatedDevice(0) as device:
        shared = SharedEngine(SimulatedEngine(device, WIDTH, HEIGHT, lanes=1))
        leaving, staying = shared.join(0.0), shared.join(0.0).lane()
        leaving.lane().submit(noise(0))
        leaving.lane().submit(noise(1))
        staying.submit(noise(2))
        assert same(staying.wait(), upscaled(noise(2)))


@settings(max_examples=10)
@given(seed=seeds, eagerness=eagernesses, operation=st.integers(0, 80), late=st.booleans())
def test_a_device_that_fails_ends_each_stream_with_its_word(
    seed: int, eagerness: float, operation: int, late: bool
) -> None:
    failing = {"fails_at": operation} if late else {"refuses_at": operation}
    with SimulatedDevice(seed, eagerness=eagerness, **failing) as device:
        shared = SharedEngine(SimulatedEngine(device, WIDTH, HEIGHT, lanes=2))
        runs = [stream(shared, number, frames=30) for number in range(2)]
        for run in runs:
            with pytest.raises(DeviceFailed, match="illegal address" if late else "launch refused"):
                run.join()
            assert run.all_ended()


def test_streams_go_together_once_there_are_two() -> None:
    with SimulatedDevice(0, eagerness=0.2) as device:
        engine = Counted(device, lanes=1)
        shared = SharedEngine(engine)
        alone = stream(shared, 0, frames=10)
        alone.join()
        assert set(engine.sizes) == {1}
        engine.sizes.clear()
        runs = [stream(shared, number, frames=30) for number in range(1, 5)]
        for run in runs:
            run.join()
    assert sum(engine.sizes) == 120
    assert 1 < max(engine.sizes) <= 4


def test_a_device_without_room_for_batches_lets_streams_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    class Small(Counted):
        def batch_lane(self, most: int) -> DeviceLane[SimulatedSlot]:
            if most > 1:
                raise DeviceFailed("the GPU is out of memory")
            return super().batch_lane(most)

    with SimulatedDevice(0) as device:
        shared = SharedEngine(Small(device, lanes=1))
        runs = [stream(shared, number, frames=5) for number in range(2)]
        for run in runs:
            run.join()
    assert "take turns, without batches: the GPU is out of memory" in caplog.text


@threaded
@given(seed=seeds, eagerness=eagernesses)
def test_frames_of_the_device_and_of_the_host_share_a_batch(seed: int, eagerness: float) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        shared = SharedEngine(SimulatedEngine(device, WIDTH, HEIGHT, lanes=1))
        lanes = [shared.join(10.0).lane() for _ in range(2)]
        for number in range(4):
            host, other = noise(2 * number), noise(2 * number + 1)
            uv = np.stack([other.u, other.v], axis=-1)
            lanes[0].submit(host)
            lanes[1].submit(DeviceFrame(y=other.y, uv=uv, width=WIDTH, height=HEIGHT))
            assert same(lanes[0].wait(), upscaled(host))
            assert same(lanes[1].wait(), upscaled(other))


def test_a_shared_lane_is_a_lane_like_any_other() -> None:
    """Each result stays until its lane takes another frame, and fills what is smaller."""
    with SimulatedDevice(1) as device:
        shared = SharedEngine(SimulatedEngine(device, WIDTH, HEIGHT, lanes=2))
        engine = shared.join(0.0)
        in_turns([engine.lane() for _ in range(3)], frames=12)
        lane = engine.lane()
        assert isinstance(lane, FillingLane)
        with pytest.raises(ValueError, match=r"a frame of 48×18 must be 32×16"):
            lane.submit(noise(0, 48, 18))
        lane.submit(noise(1))
        whole = upscaled(noise(1))
        cut = YuvFrame(
            y=np.zeros((30, 60), np.uint8), u=np.zeros((15, 30), np.uint8), v=np.zeros((15, 30), np.uint8)
        )
        lane.wait_into(cut)
        assert same(cut, YuvFrame(y=whole.y[:30, :60], u=whole.u[:15, :30], v=whole.v[:15, :30]))


def test_an_engine_without_batches_is_each_streams_own() -> None:
    engine = DoublingEngine(WIDTH, HEIGHT)
    assert not isinstance(engine, BatchEngine)
    assert SharedEngine(engine).join(1.0) is engine


# What the properties above must be able to see.


class _MixesStreams(Batcher):
    """Computes one stream's frame for another."""

    def _send(self, tickets: list[Ticket]) -> None:
        if len(tickets) > 1:
            a, b = tickets[0].slot, tickets[1].slot
            a.input, b.input = b.input, a.input
        super()._send(tickets)


class _Early(Batcher):
    """Takes a batch for done when it is on its way."""

    def _finish(self, batch: object) -> None:
        threading.Thread(target=super()._finish, args=(batch,), daemon=True).start()


class _Loses(Batcher):
    """Forgets the last frame of a batch, and says that it is done."""

    def _send(self, tickets: list[Ticket]) -> None:
        super()._send(tickets[:1])
        for ticket in tickets[1:]:
            ticket.batch = tickets[0].batch


@pytest.mark.parametrize("kind", [_MixesStreams, _Early, _Loses])
def test_the_properties_see_a_broken_batcher(kind: type[Batcher], monkeypatch: pytest.MonkeyPatch) -> None:
    def failures(seeds: range) -> int:
        count = 0
        for seed in seeds:
            with SimulatedDevice(seed, eagerness=0.3) as device:
                shared = SharedEngine(SimulatedEngine(device, WIDTH, HEIGHT, lanes=1))
                # All are there before the first begins, and wait for each other: batches are no chance.
                engines = [shared.join(0.1) for _ in range(3)]
                runs = [begun(engine, number, frames=20) for number, engine in enumerate(engines)]
                broken = False
                for run in runs:
                    try:
                        run.join()
                    except AssertionError:
                        broken = True
                count += broken
        return count

    assert failures(range(2)) == 0
    monkeypatch.setattr("engine.share.Batcher", kind)
    assert failures(range(5)) >= 4
