"""A stream's threads and the bounded mailboxes between them: pictures in, upscaled pictures out, in order."""

import threading
import time
from collections.abc import Callable, Sequence

from server.wire.logs import Log
from server.wire.messages import DropReason, Stage
from server.worker.process.ladder import Ladder
from server.worker.process.mailbox import Closed, Mailbox
from server.worker.process.picture import Picture
from server.worker.process.ring import IDLE_S, Ring, Upscaled
from server.worker.process.supply import LoadEngine, LoadStatus, StandIn

# Live: enough to ride out a burst from the network, short enough that a picture is never old.
_PICTURES, _UPSCALED = 3, 2


class Pipeline:
    """`produce(put)` gives pictures in its own thread until it returns; `consume` takes them in another.

    Live, `on_drop(stage, reason)` hears of each picture dropped and which stage was too slow for it; offline,
    where it is None, nothing is dropped and the sender waits. Without a `stand_in` pictures wait for their
    engine. What any thread raises ends all of them, and `join` raises it again.
    """

    def __init__(
        self,
        *,
        produce: Callable[[Callable[[Picture], None]], None],
        load: LoadEngine,
        lanes: int,
        consume: Callable[[Upscaled], None],
        on_drop: Callable[[Stage, DropReason], None] | None,
        log: Log,
        stand_in: StandIn | None = None,
        lower: Sequence[LoadEngine] = (),
        level: Callable[[], int] = lambda: 0,
        on_other_engine: Callable[[], None] = lambda: None,
        idle: Callable[[], None] = lambda: None,
        idle_s: float = IDLE_S,
    ) -> None:
        """`lower`: smaller engines of the same output size; `level` says which one upscales the next picture,
        0 being `load`'s. `on_other_engine` is called as pictures get another of that level: some have waited
        for it. `idle` is called, in the thread of `consume`, whenever there has been nothing to consume for
        `idle_s`."""
        self._produce = produce
        self._consume = consume
        self._idle = idle
        self._idle_s = idle_s
        self._on_drop = on_drop
        live = on_drop is not None
        self._pictures = Mailbox[Picture](_PICTURES, on_drop=self._drop_picture if live else None)
        self._upscaled = Mailbox[Upscaled](_UPSCALED, on_drop=self._drop_upscaled if live else None)
        self._ring = Ring(
            Ladder(
                load,
                lower,
                level=level,
                lanes=lanes,
                stand_in=stand_in,
                log=log,
                on_other=on_other_engine,
            ),
            inbox=self._pictures,
            outbox=self._upscaled,
            beat=self._step,
        )
        self._steps: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        work = {
            "source": self._run_source,
            "submit": self._ring.submit_all,
            "collect": self._ring.collect_all,
            "encode": self._run_sink,
        }
        # Daemons: a read from the network may last until its timeout, and a process that ends must not wait.
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            for name, run in work.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def abort(self) -> None:
        """Ends the threads without what is still in the mailboxes; `put` raises Closed then."""
        self._pictures.abort()
        self._upscaled.abort()
        self._ring.abort()

    def close(self) -> None:
        """Returns once all threads have ended, nothing of it is in any lane, and it holds no engine. One that
        loads an engine may go on: it has nothing of the source, and the engine may be another's, too."""
        self.abort()
        self.wait()
        self._ring.settle()
        self._failure = None  # whose traceback knows all that its thread had: lanes, a decoder

    def wait(self, timeout_s: float | None = None) -> None:
        """Waits until all threads have ended, or the time is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def join(self, timeout_s: float | None = None) -> None:
        """Waits likewise, and raises what ended the first of them."""
        self.wait(timeout_s)
        if self._failure is not None:
            raise self._failure

    @property
    def running(self) -> bool:
        """False once a thread has failed, or the last picture is consumed."""
        return self._failure is None and self._threads[-1].is_alive()

    def queues(self) -> dict[Stage, int]:
        """Pictures waiting, by the stage that they wait for."""
        return {"upscale": len(self._pictures), "encode": len(self._upscaled)}

    @property
    def load_status(self) -> LoadStatus | None:
        """How far the engine is; None before the first picture."""
        return self._ring.load_status

    @property
    def loaded(self) -> bool:
        """The engine for the last pictures is there, or has failed."""
        status = self.load_status
        return status is not None and status.state != "loading"

    def steps(self) -> dict[str, int]:
        """Steps that each working thread has made so far, at least two a second; a loader is none."""
        return self._steps.copy()

    def _step(self, name: str) -> None:
        self._steps[name] = self._steps.get(name, 0) + 1

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Closed:
            pass  # the other side of a mailbox has ended
        except BaseException as exc:  # the boundary of every stage: `join` raises it where the owner waits
            with self._lock:
                self._failure = self._failure or exc
            self.abort()

    def _run_source(self) -> None:
        self._produce(self._pictures.put)
        self._pictures.close()

    def _run_sink(self) -> None:
        while True:
            self._step("encode")
            upscaled = self._upscaled.take(self._idle_s)
            if upscaled is not None:
                self._consume(upscaled)
            else:
                self._idle()

    def _drop_picture(self, _: Picture) -> None:
        assert self._on_drop is not None
        self._on_drop("upscale", "engine_loading" if self._ring.loading else "overload")

    def _drop_upscaled(self, _: Upscaled) -> None:
        assert self._on_drop is not None
        self._on_drop("encode", "overload")
