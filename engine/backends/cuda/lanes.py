"""The lane of every GPU engine: copy in, compute, copy out, each on another stream, joined by events.

    put: planes ─► pinned memory;  submit: ─► copy-in stream ─► compute stream ─► copy-out stream ─► wait

A lane takes one frame, or several at once, each of which has a slot: its own memory on both sides. With
several lanes one batch is copied while another is computed. A lane computes on a stream of its own; the lanes
of an engine share its two copy streams: a GPU copies one frame at a time in each direction, and PyTorch has
no more than 32 streams, of which it hands out the same again once all are taken. The host waits in `wait`
alone, and there only for the lane's own last event. What the device is stands behind `Device`, `Program` and
`FrameSlot`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from engine.frame import DeviceFrame, EngineSpec, YuvFrame

EventT = TypeVar("EventT")
EventT_contra = TypeVar("EventT_contra", contravariant=True)
Output_co = TypeVar("Output_co", bound=YuvFrame | DeviceFrame, covariant=True)

# Puts operations on the stream that it is enqueued on, and does not wait for them.
Work = Callable[[], None]


class Event(Protocol):
    """A point in a stream's work."""

    def wait(self) -> None:
        """Blocks the calling thread until the work before it is done. Raises DeviceFailed where it failed."""
        ...


class Stream(Protocol[EventT_contra]):
    """Work of a device, done in the order in which it is put here, beside that of other streams. No method
    waits for the device; any may raise DeviceFailed."""

    def enqueue(self, work: Work) -> None: ...

    def record(self, event: EventT_contra) -> None: ...

    def wait_for(self, event: EventT_contra) -> None:
        """What is enqueued from here on starts after the work recorded in the event."""
        ...


class Device(Protocol[EventT]):
    """What the lanes of one engine run on."""

    @property
    def copy_in(self) -> Stream[EventT]:
        """Where frames of all lanes come in, in the order of their submission."""
        ...

    @property
    def copy_out(self) -> Stream[EventT]: ...

    def stream(self) -> Stream[EventT]: ...

    def event(self) -> EventT: ...

    def producer(self, handle: int) -> Stream[EventT]:
        """The stream of somebody else that `DeviceFrame.stream` names."""
        ...


class FrameSlot(Protocol[Output_co]):
    """One frame's memory on both sides of a program."""

    @property
    def written(self) -> Any:
        """The event after which the frame may be read; None for one that came from the host."""
        ...

    def put(self, frame: YuvFrame | DeviceFrame) -> None:
        """A host frame's planes are copied; those of a frame on the device are only lent and must not change
        until `take`. Their writer's stream is not asked again: it may be gone when the batch is formed.
        Raises ValueError where the frame is of another size."""
        ...

    def take(self) -> Output_co: ...


SlotT = TypeVar("SlotT", bound=FrameSlot[Any])
SlotT_contra = TypeVar("SlotT_contra", bound=FrameSlot[Any], contravariant=True)


class Program(Protocol[SlotT_contra]):
    """The network for one batch at a time, with memory of its own on the device."""

    def upload(self, slots: Sequence[SlotT_contra]) -> None:
        """Work: the slots' frames to where `compute` reads."""
        ...

    def compute(self, count: int) -> None:
        """Work: that many frames."""
        ...

    def download(self, slots: Sequence[SlotT_contra]) -> None:
        """Work: the results to the slots, each its own."""
        ...


class DeviceLane(Generic[SlotT]):
    """One batch in flight on a device."""

    def __init__(self, device: Device[Any], program: Program[SlotT]) -> None:
        self._program = program
        self._copy_in, self._compute, self._copy_out = device.copy_in, device.stream(), device.copy_out
        self._uploaded, self._computed, self._done = (device.event() for _ in range(3))
        self._in_flight: Sequence[SlotT] = ()

    def submit(self, slots: Sequence[SlotT]) -> None:
        """Raises DeviceFailed, and what a slot's own work raises; the lane takes another batch then."""
        assert slots, "a batch of nothing"
        assert not self._in_flight, "submit before the last batch was waited for"
        for slot in slots:
            if slot.written is not None:
                self._copy_in.wait_for(slot.written)
        self._copy_in.enqueue(partial(self._program.upload, slots))
        self._copy_in.record(self._uploaded)
        self._compute.wait_for(self._uploaded)
        self._compute.enqueue(partial(self._program.compute, len(slots)))
        self._compute.record(self._computed)
        self._copy_out.wait_for(self._computed)
        self._copy_out.enqueue(partial(self._program.download, slots))
        self._copy_out.record(self._done)
        self._in_flight = slots

    def wait(self) -> None:
        """Raises DeviceFailed."""
        assert self._in_flight, "wait without submit"
        try:
            self._done.wait()
        finally:
            self._in_flight = ()


class FrameLane(Generic[Output_co]):
    """One frame in flight on a device, in a slot of its own."""

    def __init__(self, lane: DeviceLane[Any], slot: FrameSlot[Output_co]) -> None:
        self._lane = lane
        self._slot = slot

    def submit(self, frame: YuvFrame | DeviceFrame) -> None:
        """Raises ValueError where the frame is of another size, DeviceFailed."""
        self._slot.put(frame)
        self._lane.submit([self._slot])

    def wait(self) -> Output_co:
        """Raises DeviceFailed."""
        self._lane.wait()
        return self._slot.take()


def check_size(frame: YuvFrame | DeviceFrame, spec: EngineSpec) -> None:
    """Raises ValueError for a frame that an engine of this spec does not take."""
    if isinstance(frame, DeviceFrame):
        width, height = frame.width, frame.height
    else:
        height, width = frame.y.shape
    if (width, height) != (spec.width, spec.height):
        size = f"{spec.width}×{spec.height}"
        raise ValueError(f"a frame of {width}×{height} must be {size}, which this engine was loaded for")
