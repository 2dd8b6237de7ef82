"""Surfaces from a decoder through lanes to an encoder that holds them, on a simulated device that works late
and poisons what is given back: pool, layout and order are those of CUDA."""

import ctypes
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.backends.cuda.lanes import DeviceLane, FrameLane
from engine.backends.cuda.surfaces import SurfacePool, _Memory
from engine.frame import DeviceFrame, EngineSpec, GpuEngine, Plane, YuvFrame
from engine.share import SharedEngine
from tests.engine.backends.simulated_device import (
    SCALE,
    SimulatedDevice,
    SimulatedEngine,
    SimulatedProgram,
    SimulatedSlot,
    upscaled,
)
from tests.engine.backends.test_lanes import in_turns, noise

# Neither is a multiple of a pitch.
WIDTH, HEIGHT = 42, 18
CPU = torch.device("cpu")
threaded = settings(max_examples=40)


class PoisonedPool(SurfacePool):
    """Whoever still reads what was given back reads garbage."""

    def take_back(self, memory: _Memory) -> None:
        memory.buffer.random_(0, 256)
        super().take_back(memory)


class SurfaceSlot(SimulatedSlot):
    """As the CUDA one's sink: a surface is lent when the work is enqueued, and written when it is done."""

    output: DeviceFrame  # type: ignore[assignment]

    def __init__(self, device: SimulatedDevice, spec: EngineSpec, pool: SurfacePool) -> None:
        super().__init__(device, spec)
        self._pool = pool

    def write(self, after: YuvFrame) -> None:
        self.output = self._pool.lend(partial(self._write, after))

    def _write(self, after: YuvFrame, y: Tensor, uv: Tensor) -> None:
        targets = [y.numpy(), uv[:, :, 0].numpy(), uv[:, :, 1].numpy()]
        self._device.write(targets, lambda: [after.y, after.u, after.v])


class SurfaceEngine(SimulatedEngine):
    """Lanes that share a pool, as those of an engine do."""

    lane_class = DeviceLane

    def __init__(self, device: SimulatedDevice, width: int = WIDTH, height: int = HEIGHT) -> None:
        super().__init__(device, width, height)
        self.pool: SurfacePool = PoisonedPool(SCALE * width, SCALE * height, CPU)

    def surface_slot(self) -> SurfaceSlot:
        return SurfaceSlot(self._device, self.spec, self.pool)

    def surface_lane(self) -> FrameLane[DeviceFrame]:
        return FrameLane(self.lane_class(self._device, self.program()), self.surface_slot())


class Encoder:
    """Holds frames of libav for a while, as mailboxes, an encoder and the slate do, and reads each as NVENC
    does when it lets it go: chroma by luma's address and pitch."""

    def __init__(self, seed: int, most: int) -> None:
        self._random, self._most = random.Random(seed), most
        self._held: list[tuple[int, VideoFrame]] = []
        self.read = 0

    def take(self, number: int, surface: DeviceFrame) -> None:
        self._held.append((number, VideoFrame.from_dlpack((surface.y, surface.uv), format="nv12")))
        while len(self._held) > self._most:
            self._let_go(self._random.randrange(len(self._held)))

    def end(self) -> None:
        while self._held:
            self._let_go(0)

    def _let_go(self, index: int) -> None:
        number, frame = self._held.pop(index)
        luma = frame.planes[0]
        size = luma.line_size * frame.height * 3 // 2
        rows = np.frombuffer(ctypes.string_at(luma.buffer_ptr, size), np.uint8).reshape(-1, luma.line_size)
        expected = upscaled(noise(number, WIDTH, HEIGHT))
        assert np.array_equal(rows[: frame.height, : frame.width], expected.y)
        chroma = rows[frame.height :, : frame.width]
        assert np.array_equal(chroma[:, 0::2], expected.u)
        assert np.array_equal(chroma[:, 1::2], expected.v)
        self.read += 1


def encoded(engine: GpuEngine, lanes: int, encoder: Encoder, frames: int = 16) -> None:
    ring = [engine.surface_lane() for _ in range(lanes)]
    for number in range(frames + lanes):
        lane = ring[number % lanes]
        if number >= lanes:
            encoder.take(number - lanes, lane.wait())
        if number < frames:
            lane.submit(noise(number, WIDTH, HEIGHT))
    encoder.end()
    assert encoder.read == frames


seeds = st.integers(0, 2**32 - 1)


@threaded
@given(
    seed=seeds,
    eagerness=st.sampled_from([0.0, 0.3, 1.0]),
    lanes=st.integers(1, 4),
    held=st.integers(0, 5),
    streams=st.sampled_from([1, 2, 5, 32]),
)
def test_an_encoder_reads_what_its_frame_was_however_long_it_holds_it(
    seed: int, eagerness: float, lanes: int, held: int, streams: int
) -> None:
    with SimulatedDevice(seed, eagerness=eagerness, stream_pool=streams) as device:
        engine = SurfaceEngine(device)
        encoded(engine, lanes, Encoder(seed, held))
        # Those that are held, the one that is handed over, and each lane's last.
        assert engine.pool.surfaces <= held + lanes + 1


@settings(max_examples=20)
@given(
    seed=seeds, eagerness=st.sampled_from([0.0, 0.3, 1.0]), streams=st.integers(2, 4), held=st.integers(0, 5)
)
def test_streams_in_one_batch_have_surfaces_of_their_own(
    seed: int, eagerness: float, streams: int, held: int
) -> None:
    """From a decoder's stream each, to an encoder each that holds them."""
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        shared = SharedEngine(SurfaceEngine(device))
        engines = [shared.join(10.0) for _ in range(streams)]
        lanes = [engine.surface_lane() for engine in engines]
        encoders = [Encoder(seed, held) for _ in engines]
        for turn in range(6):
            for stream, lane in enumerate(lanes):
                lane.submit(decoded(device, 10 * turn + stream, handle=stream))
            for stream, lane in enumerate(lanes):
                encoders[stream].take(10 * turn + stream, lane.wait())
        for encoder in encoders:
            encoder.end()
            assert encoder.read == 6


def test_a_decoder_that_is_gone_before_its_batch_is_not_asked_again() -> None:
    """Its stream is no more; what is left of it is the event of its last write."""
    with SimulatedDevice(0) as device:
        shared = SharedEngine(SurfaceEngine(device))
        leaving, staying = (shared.join(10.0).surface_lane() for _ in range(2))
        busy = shared.join(0.0).lane()
        device.hold(held := device.producer(7))
        busy.submit(noise(0, WIDTH, HEIGHT))  # the only lane
        leaving.submit(decoded(device, 1, handle=7))
        device.hold(held, False)
        device.producer = lambda handle: pytest.fail(f"stream {handle} is gone")
        staying_frame = noise(2, WIDTH, HEIGHT)
        staying.submit(staying_frame)
        busy.wait()
        surface, lost = staying.wait(), leaving.wait()
        assert np.array_equal(np.from_dlpack(surface.y), upscaled(staying_frame).y)
        assert np.array_equal(np.from_dlpack(lost.y), upscaled(noise(1, WIDTH, HEIGHT)).y)


@threaded
@given(seed=seeds, lanes=st.integers(1, 12), streams=st.sampled_from([1, 3, 32]))
def test_lanes_that_share_streams_keep_their_frames(seed: int, lanes: int, streams: int) -> None:
    """Beyond eight lanes of four streams each, PyTorch hands out the same streams again."""
    with SimulatedDevice(seed, stream_pool=streams) as device:
        engine = SimulatedEngine(device, 32, 16)
        in_turns([engine.lane() for _ in range(lanes)], frames=2 * lanes)


class EarlyPool(PoisonedPool):
    """Takes a surface back as soon as another is asked for, like a ring that is too short."""

    def _next(self) -> _Memory:
        memory = super()._next()
        self._free.append(memory)
        return memory


class TwoBuffers(PoisonedPool):
    """Chroma in an allocation of its own."""

    def lend(self, write: Callable[[Tensor, Tensor], None]) -> DeviceFrame:
        surface = super().lend(lambda y, uv: None)
        uv = torch.empty_like(surface.uv)
        write(surface.y, uv)
        return DeviceFrame(y=surface.y, uv=uv, width=surface.width, height=surface.height)


class Hasty(DeviceLane):
    """Gives its surface out before it is written."""

    def wait(self) -> None:
        self._in_flight = ()


@pytest.mark.parametrize("broken", ["a ring that is too short", "two buffers", "early output"])
def test_the_property_sees_what_is_broken(broken: str) -> None:
    failures = 0
    for seed in range(5):
        with SimulatedDevice(seed, eagerness=0.0) as device:
            engine = SurfaceEngine(device)
            if broken == "a ring that is too short":
                engine.pool = EarlyPool(SCALE * WIDTH, SCALE * HEIGHT, CPU)
            elif broken == "two buffers":
                engine.pool = TwoBuffers(SCALE * WIDTH, SCALE * HEIGHT, CPU)
            elif broken == "early output":
                engine.lane_class = Hasty
            try:
                encoded(engine, 3, Encoder(seed, 3))
            except AssertionError:
                failures += 1
    assert failures >= 4


def decoded(device: SimulatedDevice, number: int, handle: int) -> DeviceFrame:
    """Written late, on a stream of the decoder's."""
    buffer = np.zeros((HEIGHT * 3 // 2, WIDTH), np.uint8)
    uv = buffer[HEIGHT:].reshape(HEIGHT // 2, WIDTH // 2, 2)
    frame = noise(number, WIDTH, HEIGHT)
    device.current = device.producer(handle)
    device.write([buffer[:HEIGHT], uv[:, :, 0], uv[:, :, 1]], lambda: [frame.y, frame.u, frame.v])
    return DeviceFrame(y=buffer[:HEIGHT], uv=uv, width=WIDTH, height=HEIGHT, stream=handle)


def right(device: SimulatedDevice, frames: int = 8) -> int:
    """How many frames of two decoders, each on its stream, come out as they are."""
    lanes = [SurfaceEngine(device).surface_lane() for _ in range(2)]
    count = 0
    for number in range(frames + 2):
        lane = lanes[number % 2]
        if number >= 2:
            surface, expected = lane.wait(), upscaled(noise(number - 2, WIDTH, HEIGHT))
            count += np.array_equal(np.from_dlpack(surface.y), expected.y)
        if number < frames:
            lane.submit(decoded(device, number, handle=number % 2))
    return count


@threaded
@given(seed=seeds, eagerness=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_decoder_that_writes_late_on_its_own_stream_is_waited_for(seed: int, eagerness: float) -> None:
    with SimulatedDevice(seed, eagerness=eagerness) as device:
        assert right(device) == 8


def test_a_lane_that_waits_for_another_stream_is_seen() -> None:
    with SimulatedDevice(0) as device:
        device.hold(device.producer(1))
        lane, frame = SurfaceEngine(device).surface_lane(), decoded(device, 0, handle=1)
        lane.submit(replace(frame, stream=2))
        assert not np.array_equal(np.from_dlpack(lane.wait().y), upscaled(noise(0, WIDTH, HEIGHT)).y)


class SeenProgram(SimulatedProgram):
    """Says when its frame has arrived."""

    def __init__(self, device: SimulatedDevice, spec: EngineSpec) -> None:
        super().__init__(device, spec)
        self.uploaded = threading.Event()

    def upload(self, slots: Sequence[SimulatedSlot]) -> None:
        super().upload(slots)
        self._device.write([], self._say)

    def _say(self) -> Sequence[Plane]:
        self.uploaded.set()
        return []


@pytest.mark.parametrize("overlapping", [True, False])
def test_one_lane_copies_while_another_computes(overlapping: bool) -> None:
    """And that it would be seen where they took turns on one stream."""
    with SimulatedDevice(0, eagerness=1.0) as device:
        engine = SimulatedEngine(device, 32, 16)
        programs = SeenProgram(device, engine.spec), SeenProgram(device, engine.spec)
        first, second = (DeviceLane(device, program) for program in programs)
        slots = engine.slot(), engine.slot()
        for number, slot in enumerate(slots):
            slot.put(noise(number))
        if not overlapping:
            second._copy_in = first._compute
        device.hold(first._compute)
        first.submit(slots[:1])
        second.submit(slots[1:])
        assert programs[1].uploaded.wait(10 if overlapping else 0.5) is overlapping
        device.hold(first._compute, False)
        for number, lane in enumerate((first, second)):
            lane.wait()
            assert np.array_equal(slots[number].take().y, upscaled(noise(number)).y)
