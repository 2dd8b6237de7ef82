"""Which engine a picture gets: the one for its format, loaded in the background, or what stands in for it."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import BuildFailed, DeviceFailed, EngineError, ParityError
from engine.frame import Colour, Engine, EngineSpec
from server.wire.clock import now_ns
from server.wire.logs import Log
from server.wire.messages import LoadState
from server.worker.process.lanes import PictureLane, lane_count, picture_lane
from server.worker.process.picture import Picture

# An engine for planes of this width, height and colour.
LoadEngine = Callable[[int, int, Colour], Engine]

# What leaves a stream with the stand-in. Any other error is the operator's to mend, and ends it.
STOOD_IN_FOR = (BuildFailed, ParityError)
_LOOK_S = 0.5  # how often who waits for an engine says that it lives


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """What upscales where the engine isn't there after `patience_s`: what `load` gives at once, and in its
    place, as soon as it is loaded, what `better` gives."""

    load: LoadEngine
    patience_s: float
    better: LoadEngine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStatus:
    """How far the engine for the present pictures is; `spec` is known once it is ready, and `reason` says why
    it failed. `on_gpu`: its pictures stay in the GPU's memory."""

    state: LoadState
    width: int
    height: int
    colour: Colour
    elapsed_s: float
    reason: str
    spec: EngineSpec | None
    on_gpu: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedEngine:
    """A loaded engine and those of its lanes that are free."""

    engine: Engine
    free: "queue.SimpleQueue[PictureLane]"  # bounded by the number of lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a picture needs an engine to be loaded for."""

    width: int
    height: int
    colour: Colour
    on_gpu: bool


@dataclass(slots=True, kw_only=True, eq=False)
class LoadRequest:
    """One engine asked for: what came of it, the stand-in that was needed until then, and which of them its
    pictures have got."""

    wanted: _Wanted
    since_ns: int
    done_ns: int = 0
    loaded: LoadedEngine | None = None
    error: BaseException | None = None
    standing_in: LoadedEngine | None = None
    given: LoadedEngine | None = None


class EngineSupply:
    """Loads one engine at a time in a thread of its own: no picture needs to wait for a build that takes
    minutes. `engine_for` belongs to one thread; without a stand-in it waits for as long as it takes."""

    def __init__(
        self,
        load: LoadEngine,
        *,
        lanes: int,
        stand_in: StandIn | None,
        log: Log,
        on_other: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_other` is called as `engine_for` gives another engine than before."""
        if lanes < 0:
            raise ValueError(f"{lanes = } must be at least 0")
        self._load = load
        self._lanes = lanes
        self._stand_in = stand_in
        self._on_other = on_other
        self._better: EngineSupply | None = None
        if stand_in is not None and stand_in.better is not None:
            better = logged(stand_in.better, log, "nothing better stands in")
            self._better = EngineSupply(better, lanes=lanes, stand_in=None, log=log)
        self._log = log
        self._changed = threading.Condition()
        self._current: LoadRequest | None = None
        self._running: LoadRequest | None = (
            None  # what the loader is at; it goes on to a newer request by itself
        )
        self.waiting = True  # nothing can be upscaled now, for want of an engine

    @property
    def status(self) -> LoadStatus | None:
        """State of the present request; None before the first picture. For any thread."""
        request = self._current
        if request is None:
            return None
        state: LoadState = "loading"
        if request.done_ns:
            state = "failed" if request.error else "ready"
        elapsed_s = ((request.done_ns or now_ns()) - request.since_ns) / 1e9
        reason = str(request.error) if request.error else ""
        return LoadStatus(
            state=state,
            width=request.wanted.width,
            height=request.wanted.height,
            colour=request.wanted.colour,
            elapsed_s=elapsed_s,
            reason=reason,
            spec=request.loaded.engine.spec if request.loaded is not None else None,
            on_gpu=request.wanted.on_gpu,
        )

    def engine_for(self, picture: Picture, alive: Callable[[], None]) -> LoadedEngine:
        """The same as before unless the format has changed or an engine has come; `alive` is called while it
        waits and may raise. Raises what loading raised, but not where a build failed and something stands in.
        """
        request = self._request_for(picture)
        if request.done_ns == 0 and request.standing_in is None:
            self.waiting = True
            self._wait(request, alive)
        loaded = request.loaded or self._standing_in(request, picture)
        if request.loaded is not None and self._better is not None:
            self._better.forget()
        if loaded is not request.given:
            request.given = loaded
            self._on_other()
        self.waiting = False
        return loaded

    def prepare(self, picture: Picture) -> LoadedEngine | None:
        """The engine for the picture where it is there; otherwise it is being loaded, or can't be."""
        return self._request_for(picture).loaded

    def forget(self) -> None:
        """Keeps no engine, nor the one that is being loaded."""
        self._current = None
        if self._better is not None:
            self._better.forget()

    def _request_for(self, picture: Picture) -> LoadRequest:
        width, height = picture.format.even_size
        wanted = _Wanted(width=width, height=height, colour=picture.format.colour, on_gpu=picture.on_gpu)
        request = self._current
        if request is None or request.wanted != wanted:
            request = self._ask_for(wanted)
        return request

    def _ask_for(self, wanted: _Wanted) -> LoadRequest:
        with self._changed:
            running = self._running
            if running is not None and running.wanted == wanted:
                self._current = running  # the source is back to it before it was done
                return running
            self._current = request = LoadRequest(wanted=wanted, since_ns=now_ns())
            if running is None:
                self._running = request
                # A daemon: a build goes on for minutes, and a process that ends must not wait for it.
                threading.Thread(
                    target=self._load_requested, args=(request,), name="load", daemon=True
                ).start()
        return request

    def _wait(self, request: LoadRequest, alive: Callable[[], None]) -> None:
        """Waits until the request is done or patience has ended."""
        while not request.done_ns:
            alive()
            left_s = _LOOK_S
            if self._stand_in is not None:
                left_s = self._stand_in.patience_s - (now_ns() - request.since_ns) / 1e9
                if left_s <= 0:
                    return
            with self._changed:
                self._changed.wait_for(lambda: request.done_ns, min(left_s, _LOOK_S))

    def _standing_in(self, request: LoadRequest, picture: Picture) -> LoadedEngine:
        error = request.error
        if error is not None and (self._stand_in is None or not isinstance(error, STOOD_IN_FOR)):
            raise error
        assert self._stand_in is not None, "without one, a request is waited for until it is done"
        if request.standing_in is None:
            request.standing_in = self._load_lanes(self._stand_in.load, request)
            if error is None:
                self._log.warning(
                    "engine stood in for",
                    size=f"{request.wanted.width}x{request.wanted.height}",
                    waited_s=self._stand_in.patience_s,
                    model=request.standing_in.engine.spec.model,
                )
        better = self._better.prepare(picture) if self._better is not None else None
        return better or request.standing_in

    def _load_requested(self, request: LoadRequest) -> None:
        """Loads until the present request is done: it may have replaced another while that was built."""
        while True:
            self._fill(request)
            with self._changed:
                self._running = None if request is self._current else self._current
                if self._running is None:
                    request.done_ns = now_ns()
                    self._changed.notify_all()
                    break
                request = self._running
        self._say(request)

    def _fill(self, request: LoadRequest) -> None:
        try:
            request.loaded = self._load_lanes(self._load, request)
        except BaseException as exc:  # the thread's boundary: `engine_for` raises it where the pictures are
            request.error = exc

    def _load_lanes(self, load: LoadEngine, request: LoadRequest) -> LoadedEngine:
        wanted = request.wanted
        engine = load(wanted.width, wanted.height, wanted.colour)
        free: queue.SimpleQueue[PictureLane] = queue.SimpleQueue()
        for _ in range(self._lanes or lane_count(engine, on_gpu=wanted.on_gpu)):
            free.put(picture_lane(engine, on_gpu=wanted.on_gpu))
        return LoadedEngine(engine=engine, free=free)

    def _say(self, request: LoadRequest) -> None:
        width, height = request.wanted.width, request.wanted.height
        took_s = (request.done_ns - request.since_ns) / 1e9
        if request.loaded is not None:
            spec = request.loaded.engine.spec
            self._log.info(
                "engine loaded",
                model=spec.model,
                precision=spec.precision,
                backend=spec.backend,
                size=f"{width}x{height}",
                took_s=round(took_s, 1),
            )
        elif isinstance(request.error, STOOD_IN_FOR) and self._stand_in is not None:
            self._log.error(
                "engine failed",
                size=f"{width}x{height}",
                took_s=round(took_s, 1),
                reason=str(request.error),
            )


def logged(load: LoadEngine, log: Log, consequence: str) -> LoadEngine:
    """For an engine that nobody waits for, nor hears why there is none."""

    def load_or_say(width: int, height: int, colour: Colour) -> Engine:
        try:
            return load(width, height, colour)
        except (EngineError, DeviceFailed) as exc:
            log.error("engine left out", consequence=consequence, reason=str(exc))
            raise

    return load_or_say
