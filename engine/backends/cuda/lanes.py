"""The lane of every GPU engine: copy in, compute, copy out, each on another stream, joined by events.

    submit: planes ─► pinned memory ─► copy-in stream ─► compute stream ─► copy-out stream ─► wait

With several lanes one frame is copied while another is computed. A lane computes on a stream of its own; the
lanes of an engine share its two copy streams: a GPU copies one frame at a time in each direction, and PyTorch
has no more than 32 streams, of which it hands out the same again once all are taken. The host waits in `wait`
alone, and there only for the lane's own last event. What the device is stands behind `Device` and `Program`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

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


class Program(Protocol[Output_co]):
    """The network for one frame at a time, with that frame's memory on both sides."""

    @property
    def input(self) -> YuvFrame:
        """Pinned planes that the host writes and `upload` reads."""
        ...

    @property
    def output(self) -> Output_co:
        """Output of the last frame, whole once its download is done."""
        ...

    def upload(self, frame: DeviceFrame | None) -> None:
        """Work: the input to where `compute` reads; or, past the host, a frame that lies on the device."""
        ...

    def compute(self) -> None: ...

    def download(self) -> None: ...


class DeviceLane(Generic[Output_co]):
    """One frame in flight on a device. A host frame's planes are copied before `submit` returns; those of a
    frame on the device are only lent to it and must not change until `wait` has returned."""

    def __init__(self, device: Device[Any], program: Program[Output_co], spec: EngineSpec) -> None:
        self._device = device
        self._program = program
        self._spec = spec
        self._copy_in, self._compute, self._copy_out = device.copy_in, device.stream(), device.copy_out
        self._uploaded, self._computed, self._done = (device.event() for _ in range(3))
        self._written = device.event()
        self._in_flight = False
        self._lent: DeviceFrame | None = None

    def submit(self, frame: YuvFrame | DeviceFrame) -> None:
        """Raises ValueError where the frame is of another size, DeviceFailed."""
        assert not self._in_flight, "submit before the last frame was waited for"
        self._check_size(frame)
        self._in_flight = True
        if isinstance(frame, DeviceFrame):
            self._lent = frame
            self._device.producer(frame.stream).record(self._written)
            self._copy_in.wait_for(self._written)
        else:
            planes = self._program.input
            for target, source in ((planes.y, frame.y), (planes.u, frame.u), (planes.v, frame.v)):
                np.copyto(target, source)
        self._copy_in.enqueue(partial(self._program.upload, self._lent))
        self._copy_in.record(self._uploaded)
        self._compute.wait_for(self._uploaded)
        self._compute.enqueue(self._program.compute)
        self._compute.record(self._computed)
        self._copy_out.wait_for(self._computed)
        self._copy_out.enqueue(self._program.download)
        self._copy_out.record(self._done)

    def wait(self) -> Output_co:
        """Raises DeviceFailed."""
        assert self._in_flight, "wait without submit"
        self._done.wait()
        self._in_flight, self._lent = False, None
        return self._program.output

    def _check_size(self, frame: YuvFrame | DeviceFrame) -> None:
        if isinstance(frame, DeviceFrame):
            width, height = frame.width, frame.height
        else:
            height, width = frame.y.shape
        spec = self._spec
        if (width, height) != (spec.width, spec.height):
            size = f"{spec.width}×{spec.height}"
            raise ValueError(f"a frame of {width}×{height} must be {size}, which this engine was loaded for")
