"""One engine for many streams: each drives lanes as if they were its own, and their frames go together."""

import logging
import threading

from engine.batcher import Batcher, Seat, Ticket
from engine.errors import DeviceFailed
from engine.frame import (
    BatchEngine,
    DeviceFrame,
    Engine,
    EngineSpec,
    GpuBatchEngine,
    HostSlot,
    SurfaceSlot,
    YuvFrame,
    empty_output,
)

log = logging.getLogger(__name__)


class SharedEngine:
    """Lanes of one engine for the streams that have joined. As many batches are computed at once as the
    engine has lanes. As long as there is one stream, a batch is one frame and none waits: memory for more is
    taken when a second joins."""

    def __init__(self, engine: Engine) -> None:
        """An engine that takes no batches is given to each stream as it is. Raises DeviceFailed."""
        self.engine = engine
        self._joining = threading.Lock()
        self._batcher: Batcher | None = None
        if isinstance(engine, BatchEngine):
            lanes = [engine.batch_lane(1) for _ in range(_lanes(engine.spec))]
            self._batcher = Batcher(lanes, (1,))

    def join(self, wait_s: float) -> Engine:
        """The engine for one more stream, which leaves by forgetting it and its lanes. `wait_s`: how long a
        frame of its may wait for those of others. Takes as long as making lanes does, while the other streams
        go on. Raises DeviceFailed."""
        if self._batcher is None:
            return self.engine
        assert isinstance(self.engine, BatchEngine)
        with self._joining:
            seat = self._batcher.seat(wait_s)
            if self._batcher.seats > 1:
                self._make_room(self.engine, self._batcher)
        if isinstance(self.engine, GpuBatchEngine):
            return GpuStreamEngine(self, self.engine, self._batcher, seat)
        return StreamEngine(self, self.engine, self._batcher, seat)

    def _make_room(self, engine: BatchEngine, batcher: Batcher) -> None:
        sizes = engine.batches
        if batcher.largest == sizes[-1]:
            return
        try:
            lanes = [engine.batch_lane(sizes[-1]) for _ in range(_lanes(engine.spec))]
        except DeviceFailed as exc:
            log.warning("%s: its streams take turns, without batches: %s", engine.spec.model, exc)
            return
        batcher.replace(lanes, sizes)


def _lanes(spec: EngineSpec) -> int:
    """For streams on the host and on the GPU alike."""
    return max(spec.lanes, spec.surface_lanes)


class StreamEngine:
    """A shared engine as one stream sees it."""

    def __init__(self, shared: SharedEngine, engine: BatchEngine, batcher: Batcher, seat: Seat) -> None:
        self._shared = shared  # for the next stream to join, as long as there is one
        self._engine = engine
        self._batcher = batcher
        self._seat = seat

    @property
    def spec(self) -> EngineSpec:
        return self._engine.spec

    def lane(self) -> "StreamLane":
        """Raises DeviceFailed."""
        self._seat.lanes += 1
        return StreamLane(self._engine.slot(), self.spec, self._batcher, self._seat)


class GpuStreamEngine(StreamEngine):
    """One whose frames may lie on the GPU."""

    _engine: GpuBatchEngine

    def __init__(self, shared: SharedEngine, engine: GpuBatchEngine, batcher: Batcher, seat: Seat) -> None:
        super().__init__(shared, engine, batcher, seat)

    def surface_lane(self) -> "StreamSurfaceLane":
        """Raises DeviceFailed."""
        self._seat.lanes += 1
        return StreamSurfaceLane(self._engine.surface_slot(), self._batcher, self._seat)


class StreamLane:
    """One of a stream's frames in flight, in a batch with those of others."""

    def __init__(self, slot: HostSlot, spec: EngineSpec, batcher: Batcher, seat: Seat) -> None:
        self._slot = slot
        self._passage = _Passage(slot, batcher, seat)
        self._spec = spec
        self._output: YuvFrame | None = None

    def submit(self, frame: YuvFrame | DeviceFrame) -> None:
        self._passage.begin(frame)

    def wait(self) -> YuvFrame:
        if self._output is None:
            self._output = empty_output(self._spec)
        self.wait_into(self._output)
        return self._output

    def wait_into(self, planes: YuvFrame) -> None:
        self._passage.end()
        self._slot.take_into(planes)


class StreamSurfaceLane:
    """One whose frame stays on the GPU."""

    def __init__(self, slot: SurfaceSlot, batcher: Batcher, seat: Seat) -> None:
        self._slot = slot
        self._passage = _Passage(slot, batcher, seat)

    def submit(self, frame: YuvFrame | DeviceFrame) -> None:
        self._passage.begin(frame)

    def wait(self) -> DeviceFrame:
        self._passage.end()
        return self._slot.take()


class _Passage:
    """A slot through the batcher, once and again."""

    def __init__(self, slot: HostSlot | SurfaceSlot, batcher: Batcher, seat: Seat) -> None:
        self._slot = slot
        self._batcher = batcher
        self._seat = seat
        self._ticket: Ticket | None = None

    def begin(self, frame: YuvFrame | DeviceFrame) -> None:
        assert self._ticket is None, "submit before the last frame was waited for"
        self._slot.put(frame)
        self._ticket = self._batcher.submit(self._seat, self._slot)

    def end(self) -> None:
        ticket, self._ticket = self._ticket, None
        assert ticket is not None, "wait without submit"
        self._batcher.wait(ticket)
