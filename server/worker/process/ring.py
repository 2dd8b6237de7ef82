"""The ring of lanes: pictures go in as lanes come free, and come out upscaled in the same order."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import av

from engine.frame import EngineSpec
from server.wire.clock import now_ns
from server.worker.process.ladder import Ladder
from server.worker.process.lanes import PictureLane
from server.worker.process.mailbox import Closed, Mailbox
from server.worker.process.picture import Picture
from server.worker.process.supply import LoadedEngine, LoadStatus

IDLE_S = 0.5  # how often a thread with nothing to do says that it lives


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaled:
    """A picture and what the engine made of it, cropped to the largest even size within scale × source, as a
    frame on the host or as a surface."""

    picture: Picture
    frame: av.VideoFrame
    spec: EngineSpec
    level: int  # of the ladder, which that engine is at
    taken_ns: int  # left the mailbox before the lanes
    upscaled_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFlight:
    loaded: LoadedEngine
    level: int
    lane: PictureLane
    picture: Picture
    taken_ns: int


class Ring:
    """Two threads: `submit_all` keeps the lanes full; `collect_all` waits for each in turn and copies its
    output, so that a lane is free again before the encoder is done. When the engine changes, what the old
    one's lanes still hold comes out first."""

    def __init__(
        self,
        ladder: Ladder,
        *,
        inbox: Mailbox[Picture],
        outbox: Mailbox[Upscaled],
        beat: Callable[[str], None],
    ) -> None:
        self._ladder = ladder
        self._inbox = inbox
        self._outbox = outbox
        self._beat = beat
        # At most one entry for each lane there is, those of an engine on its way out included.
        self._flying: queue.SimpleQueue[_InFlight | None] = queue.SimpleQueue()
        self._aborted = threading.Event()
        self._collected = threading.Event()

    @property
    def loading(self) -> bool:
        """Pictures wait for an engine, and nothing stands in for it yet."""
        return self._ladder.waiting

    @property
    def load_status(self) -> LoadStatus | None:
        """State of the engine's loading; None before the first picture."""
        return self._ladder.status

    def abort(self) -> None:
        """Ends a submitter that waits for an engine; the mailboxes' ends end all else."""
        self._aborted.set()

    def submit_all(self) -> None:
        """Submits until the inbox closes. An engine that can't be loaded raises EngineError."""
        loaded: LoadedEngine | None = None
        lane: PictureLane | None = None
        try:
            while True:
                # The lane first: a picture that waited for one here would grow old unseen by the mailbox.
                if loaded is not None and lane is None:
                    lane = self._next_free(loaded)
                self._beat("submit")
                picture = self._inbox.take(IDLE_S)
                if picture is None:
                    continue
                present, level = self._ladder.engine_for(picture, self._alive)
                if lane is not None and loaded is not None and present is not loaded:
                    loaded.free.put(lane)
                    lane = None
                loaded, lane = present, lane or self._next_free(present)
                taken_ns = now_ns()
                lane.submit(picture)
                self._flying.put(
                    _InFlight(loaded=loaded, level=level, lane=lane, picture=picture, taken_ns=taken_ns)
                )
                lane = None
        finally:
            self._flying.put(None)

    def _alive(self) -> None:
        """Raises Closed once aborted."""
        self._beat("submit")
        if self._aborted.is_set():
            raise Closed

    def _next_free(self, loaded: LoadedEngine) -> PictureLane:
        while not self._collected.is_set():
            self._beat("submit")
            with suppress(queue.Empty):
                return loaded.free.get(timeout=IDLE_S)
        raise Closed

    def collect_all(self) -> None:
        """Collects until the submitter has ended and every lane is empty."""
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

    def settle(self) -> None:
        """Once both threads have ended: waits for what lanes still hold, as others may share the engines, and
        lets these go."""
        with suppress(queue.Empty):
            while True:
                flying = self._flying.get_nowait()
                if flying is not None:
                    with suppress(Exception):  # whose failure the stream has ended with, or nobody asks for
                        flying.lane.wait()
        self._ladder.forget()

    def _collect(self, flying: _InFlight) -> Upscaled:
        frame = flying.lane.wait()
        flying.loaded.free.put(flying.lane)
        return Upscaled(
            picture=flying.picture,
            frame=frame,
            spec=flying.loaded.engine.spec,
            level=flying.level,
            taken_ns=flying.taken_ns,
            upscaled_ns=now_ns(),
        )
