"""A device without hardware, as unkind as hardware may be: it does its work late, in any order that streams
and events allow, and what an operation will write holds garbage from its enqueuing until it is done.

A device in the sense of `engine.backends.cuda.lanes`: the lanes that run on it are those that run on CUDA.
Time does not pass by sleeping: a thread picks at random among the operations that may go next, and stops as
often as `eagerness` says, until something else is enqueued or a thread waits for an event.
"""

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

from engine.backends.cuda.lanes import DeviceLane, FrameLane, Work, check_size
from engine.errors import DeviceFailed
from engine.frame import DeviceFrame, EngineSpec, Plane, YuvFrame, copy_planes, empty_output

SCALE = 2


class SimulatedEvent:
    def __init__(self, device: "SimulatedDevice") -> None:
        self._device = device
        self.recorded = 0  # times that a stream was told to
        self.reached = 0  # and times that it came there

    def wait(self) -> None:
        self._device.wait_until_reached(self)


@dataclass
class _Operation:
    """Work, or a step from one event to another."""

    run: Callable[[], None]
    after: SimulatedEvent | None = None
    after_record: int = 0

    @property
    def ready(self) -> bool:
        return self.after is None or self.after.reached >= self.after_record


@dataclass
class SimulatedStream:
    device: "SimulatedDevice"
    operations: deque[_Operation] = field(default_factory=deque)
    held: bool = False

    @property
    def ready(self) -> bool:
        return not self.held and bool(self.operations) and self.operations[0].ready

    def enqueue(self, work: Work) -> None:
        self.device.current = self
        work()

    def record(self, event: SimulatedEvent) -> None:
        event.recorded += 1
        number = event.recorded

        def reach() -> None:
            event.reached = number

        self.device.put(self, _Operation(reach))

    def wait_for(self, event: SimulatedEvent) -> None:
        # As in CUDA: the last record so far counts, and an event never recorded holds nothing up.
        self.device.put(self, _Operation(lambda: None, event, event.recorded))


class SimulatedDevice:
    """Context manager: the executor lives inside. `fails_at`: the operation with which all work on the device
    breaks, as CUDA's errors do; `refuses_at`: the one that can't even be enqueued. `stream_pool`: it has so
    many streams and hands them out in turns, as PyTorch does with its 32."""

    def __init__(
        self,
        seed: int,
        *,
        eagerness: float = 0.5,
        fails_at: int = -1,
        refuses_at: int = -1,
        stream_pool: int = 1 << 30,
    ) -> None:
        self.current: SimulatedStream | None = None
        self._random = random.Random(seed)
        self._garbage = np.random.default_rng([seed, 1])  # not what a test makes of the same seed
        self._eagerness = eagerness
        self._fails_at, self._refuses_at = fails_at, refuses_at
        self._stream_pool, self._handed_out = stream_pool, 0
        self._enqueued = self._done = 0
        self.streams: list[SimulatedStream] = []
        self._producers: dict[int, SimulatedStream] = {}
        self.copy_in, self.copy_out = self.stream(), self.stream()
        self._waiting = 0
        self._failure: str | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._execute, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def stream(self) -> SimulatedStream:
        self._handed_out += 1
        if self._handed_out > self._stream_pool:
            return self.streams[(self._handed_out - 1) % self._stream_pool]
        stream = SimulatedStream(self)
        self.streams.append(stream)
        return stream

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def producer(self, handle: int) -> SimulatedStream:
        if handle not in self._producers:
            self._producers[handle] = SimulatedStream(self)
            self.streams.append(self._producers[handle])
        return self._producers[handle]

    def hold(self, stream: SimulatedStream, held: bool = True) -> None:
        """Whether its work stands still."""
        with self._changed:
            stream.held = held
            self._changed.notify_all()

    def write(self, targets: Sequence[Plane], compute: Callable[[], Sequence[Plane]]) -> None:
        """An operation on the current stream. What it reads it reads when it is done, not before."""
        assert self.current is not None

        def run() -> None:
            for target, values in zip(targets, compute(), strict=True):
                target[...] = values

        with self._changed:
            for target in targets:
                target[...] = self._garbage.integers(0, 256, target.shape, np.uint8)
        self.put(self.current, _Operation(run))

    def put(self, stream: SimulatedStream, operation: _Operation) -> None:
        with self._changed:
            if self._enqueued == self._refuses_at:
                raise DeviceFailed("simulated: launch refused")
            self._enqueued += 1
            stream.operations.append(operation)
            self._changed.notify_all()

    def wait_until_reached(self, event: SimulatedEvent) -> None:
        with self._changed:
            wanted = event.recorded
            self._waiting += 1
            self._changed.notify_all()
            try:
                over = self._changed.wait_for(
                    lambda: event.reached >= wanted or self._failure is not None, timeout=10
                )
                assert over, "the device stands still"
                if self._failure is not None:
                    raise DeviceFailed(self._failure)
            finally:
                self._waiting -= 1

    def _execute(self) -> None:
        with self._changed:
            while not self._closed:
                ready = [s for s in self.streams if s.ready]
                if self._failure is None and ready and self._goes_on():
                    self._step(self._random.choice(ready))
                else:
                    self._changed.wait()

    def _goes_on(self) -> bool:
        return self._waiting > 0 or self._random.random() < self._eagerness

    def _step(self, stream: SimulatedStream) -> None:
        operation = stream.operations.popleft()
        if self._done == self._fails_at:
            self._failure = "simulated: illegal address"
        else:
            operation.run()
        self._done += 1
        self._changed.notify_all()


class SimulatedSlot:
    """Pinned planes of one frame on either side, which the device writes late."""

    def __init__(self, device: SimulatedDevice, spec: EngineSpec) -> None:
        self._device = device
        self._spec = spec
        self.input = _planes(spec.width, spec.height)
        self.output = empty_output(spec)
        self._lent: DeviceFrame | None = None
        self._written = device.event()

    @property
    def written(self) -> SimulatedEvent | None:
        return None if self._lent is None else self._written

    def put(self, frame: YuvFrame | DeviceFrame) -> None:
        check_size(frame, self._spec)
        if isinstance(frame, DeviceFrame):
            self._device.producer(frame.stream).record(self._written)
            self._lent = frame
        else:
            copy_planes(frame, self.input)

    def take(self) -> YuvFrame:
        self._lent = None
        return self.output

    def take_into(self, planes: YuvFrame) -> None:
        copy_planes(self.take(), planes)

    def write(self, after: YuvFrame) -> None:
        """Work: the device's result to the output."""
        self._device.write(_list(self.output), partial(_list, after))

    def read(self) -> Sequence[Plane]:
        if self._lent is None:
            return _list(self.input)
        y, uv = np.from_dlpack(self._lent.y), np.from_dlpack(self._lent.uv)
        return y, uv[:, :, 0], uv[:, :, 1]


class SimulatedProgram:
    """A "network" whose every output sample depends on its input's place and value."""

    def __init__(self, device: SimulatedDevice, spec: EngineSpec, most: int = 1) -> None:
        self._device = device
        self._before = [_planes(spec.width, spec.height) for _ in range(most)]
        self._after = [empty_output(spec) for _ in range(most)]

    def upload(self, slots: Sequence[SimulatedSlot]) -> None:
        for slot, before in zip(slots, self._before, strict=False):
            self._device.write(_list(before), slot.read)

    def compute(self, count: int) -> None:
        assert count <= len(self._before)
        for before, after in list(zip(self._before, self._after, strict=True))[:count]:
            self._device.write(_list(after), partial(_upscaled_list, before))

    def download(self, slots: Sequence[SimulatedSlot]) -> None:
        for slot, after in zip(slots, self._after, strict=False):
            slot.write(after)


class SimulatedEngine:
    batches = (1, 2, 4)

    def __init__(self, device: SimulatedDevice, width: int, height: int, lanes: int = 1) -> None:
        self._device = device
        self.spec = EngineSpec(
            model="simulated",
            backend="test",
            precision="fp16",
            colour="y",
            scale=SCALE,
            width=width,
            height=height,
            macs_per_frame=width * height,
            parity_db=None,
            checkpoint_sha256="0" * 64,
            lanes=lanes,
        )

    def program(self, most: int = 1) -> SimulatedProgram:
        return SimulatedProgram(self._device, self.spec, most)

    def lane(self) -> FrameLane[YuvFrame]:
        return FrameLane(self.batch_lane(1), self.slot())

    def slot(self) -> SimulatedSlot:
        return SimulatedSlot(self._device, self.spec)

    def batch_lane(self, most: int) -> DeviceLane[SimulatedSlot]:
        return DeviceLane(self._device, self.program(most))


def upscaled(frame: YuvFrame) -> YuvFrame:
    """What the simulated network makes of a frame."""
    y, u, v = (
        np.ascontiguousarray((7 * plane + 3).astype(np.uint8).repeat(SCALE, 0).repeat(SCALE, 1))
        for plane in _list(frame)
    )
    return YuvFrame(y=y, u=u, v=v)


def _planes(width: int, height: int) -> YuvFrame:
    y = np.zeros((height, width), np.uint8)
    uv = np.zeros((2, height // 2, width // 2), np.uint8)
    return YuvFrame(y=y, u=uv[0], v=uv[1])


def _upscaled_list(frame: YuvFrame) -> list[Plane]:
    return _list(upscaled(frame))


def _list(frame: YuvFrame) -> list[Plane]:
    return [frame.y, frame.u, frame.v]
