"""The ring of lanes: pictures go in as lanes come free, and come out upscaled in the same order."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import av

from engine.frame import Colour, Engine, EngineSpec, Lane
from server.logs import Log
from server.process.mailbox import Closed, Mailbox
from server.process.picture import Picture, frame_from_planes
from server.process.timeline import now_ns

# An engine for planes of this width, height and colour.
LoadEngine = Callable[[int, int, Colour], Engine]

IDLE_S = 0.5  # how often a thread with nothing to do says that it lives


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaled:
    """A picture and what the engine made of it, cropped to the largest even size within scale × source."""

    picture: Picture
    frame: av.VideoFrame
    spec: EngineSpec
    taken_ns: int  # left the mailbox before the lanes
    upscaled_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFlight:
    lane: Lane
    spec: EngineSpec
    picture: Picture
    taken_ns: int


class Ring:
    """Two threads: `submit_all` keeps the lanes full; `collect_all` waits for each in turn and copies its
    output, so that a lane is free again before the encoder is done."""

    def __init__(
        self,
        load: LoadEngine,
        *,
        lanes: int,
        inbox: Mailbox[Picture],
        outbox: Mailbox[Upscaled],
        beat: Callable[[str], None],
        log: Log,
    ) -> None:
        if lanes < 1:
            raise ValueError(f"{lanes = } must be at least 1")
        self._load = load
        self._lanes = lanes
        self._inbox = inbox
        self._outbox = outbox
        self._beat = beat
        self._log = log
        # At most one entry a lane: neither can grow beyond the ring.
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        self._flying: queue.SimpleQueue[_InFlight | None] = queue.SimpleQueue()
        self._collected = threading.Event()
        self.loading = True  # until the first engine is there, and while another replaces it

    def submit_all(self) -> None:
        """Until the inbox closes. An engine that can't be loaded raises EngineError."""
        engine: Engine | None = None
        built_for: tuple[int, int, Colour] | None = None
        lane: Lane | None = None
        try:
            while True:
                # The lane first: a picture that waited for one here would grow old unseen by the mailbox.
                if engine is not None and lane is None:
                    lane = self._next_free()
                self._beat("submit")
                picture = self._inbox.take(IDLE_S)
                if picture is None:
                    continue
                wanted = (*picture.format.even_size, picture.format.colour)
                if engine is None or lane is None or wanted != built_for:
                    self._drain(self._lanes if engine is None else 1)
                    engine, built_for = self._build(wanted), wanted
                    lane = self._next_free()
                taken_ns = now_ns()
                lane.submit(picture.planes)
                self._flying.put(_InFlight(lane=lane, spec=engine.spec, picture=picture, taken_ns=taken_ns))
                lane = None
        finally:
            self._flying.put(None)

    def _drain(self, held: int) -> None:
        """Waits until every lane but those held here is back, and lets them go."""
        for _ in range(self._lanes - held):
            self._next_free()

    def _build(self, wanted: tuple[int, int, Colour]) -> Engine:
        self.loading = True
        started_ns = now_ns()
        width, height, colour = wanted
        engine = self._load(width, height, colour)
        for _ in range(self._lanes):
            self._free.put(engine.lane())
        spec = engine.spec
        self._log.info(
            "engine %s %s on %s for %d×%d loaded in %.1f s",
            spec.model, spec.precision, spec.backend, width, height, (now_ns() - started_ns) / 1e9,
        )  # fmt: skip
        self.loading = False
        return engine

    def _next_free(self) -> Lane:
        while not self._collected.is_set():
            self._beat("submit")
            with suppress(queue.Empty):
                return self._free.get(timeout=IDLE_S)
        raise Closed

    def collect_all(self) -> None:
        """Until the submitter has ended and every lane is empty."""
        try:
            while True:
                self._beat("collect")
                try:
                    flying = self._flying.get(timeout=IDLE_S)
                except queue.Empty:
                    continue
                if flying is None:
                    return
                self._outbox.put(self._collect(flying))
        finally:
            self._collected.set()
            self._outbox.close()

    def _collect(self, flying: _InFlight) -> Upscaled:
        planes = flying.lane.wait()
        width, height = flying.picture.format.scaled_size(flying.spec.scale)
        frame = frame_from_planes(planes, width, height)
        self._free.put(flying.lane)
        return Upscaled(
            picture=flying.picture,
            frame=frame,
            spec=flying.spec,
            taken_ns=flying.taken_ns,
            upscaled_ns=now_ns(),
        )
