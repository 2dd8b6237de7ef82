"""Streams of one process: each has its connection, its source and its encoders; engines belong to all."""

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from engine.errors import DeviceFailed, EngineError
from engine.frame import Colour, Engine
from engine.machine import nvidia_gpus
from server.wire.logs import Log, stream_log
from server.wire.messages import JobImpossible, Message, Prepare, WorkerBroken, WorkerJob
from server.worker.connection import Connection
from server.worker.cost import Account
from server.worker.engines import LoadBy, engine_key, engine_loader
from server.worker.ingest.source import SourceError
from server.worker.memory import SharedBound, held_bytes, lacks_memory
from server.worker.prepared import PreparedEngines
from server.worker.process.supply import LoadEngine
from server.worker.shared import SharedEngines
from server.worker.worker import JobError, Worker, WorkerHung

# When the process shall end: what a stream may take for its last words.
_LAST_WORDS_S = 1.5


class Host:
    """What ends one stream, any exception of its pipeline included, ends its connection and no other."""

    def __init__(
        self,
        load_by: LoadBy = engine_loader,
        *,
        retire: Callable[[], None] = lambda: None,
    ) -> None:
        """`retire` tells the gateway to start no further stream here."""
        self._load_by = load_by
        self._retire = retire
        self._engines = SharedEngines()
        self._account = Account()
        self._bound = SharedBound()
        self._threads: set[threading.Thread] = set()

    def run(self, connections: Iterable[socket.socket]) -> None:
        """Serves each connection in a thread of its own, until none follows and they have had time to end."""
        for connection in connections:
            thread = threading.Thread(target=self._run, args=(connection,), name="stream", daemon=True)
            self._threads.add(thread)
            thread.start()
        deadline_s = time.monotonic() + _LAST_WORDS_S
        for thread in tuple(self._threads):
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self, connection: socket.socket) -> None:
        try:
            self.serve(connection)
        finally:
            gc.collect()  # its parts know each other, and some have pictures
            self._threads.discard(threading.current_thread())

    def serve(self, gateway: socket.socket) -> None:
        """Runs the job that comes by this connection, which is closed once nothing of the stream is left: no
        thread, no file, no port of its source."""
        connection = Connection(gateway)
        messages = connection.messages()
        prepared = PreparedEngines(self._engines)
        try:
            job = _await_job(messages, prepared)
            if job is not None:
                self._see(job.gpu)
                with self._bound.raised_by(job.worker_memory_bytes):
                    self._run_job(job, connection, messages, prepared)
        finally:
            prepared.let_go()
            connection.finish()
            connection.close()

    def _run_job(
        self,
        job: WorkerJob,
        connection: Connection,
        messages: Iterator[Message],
        prepared: PreparedEngines,
    ) -> None:
        log = stream_log(job.stream)
        worker: Worker | None = None
        control: threading.Thread | None = None
        if job.engine_ahead is not None:
            prepared.begin(job.engine_ahead, partial(self._load, job, job.engine_ahead))
        try:
            worker = Worker(job, connection, log, self._shared(prepared), self._account)
            control = threading.Thread(target=worker.obey, args=(messages,), name="control", daemon=True)
            control.start()
            worker.run()
        except Exception as exc:  # the stream's boundary: the gateway says why, or starts another one
            if isinstance(exc, DeviceFailed):
                self._retire()  # CUDA in this process may be of no more use to anybody
            connection.send(self._last_word_on(exc, job, log))
        finally:
            if worker is not None:
                worker.close()
            connection.finish()
            if control is not None and control.ident is not None:
                control.join()

    def _load(self, job: WorkerJob, wanted: Prepare, on_progress: Callable[[str], None]) -> Engine:
        colour = Colour(matrix=wanted.matrix, full_range=wanted.full_range)
        return self._load_by(job, on_progress)(wanted.width, wanted.height, colour)

    def _see(self, gpu: str) -> None:
        """All streams of a process are on one GPU: the first one says which."""
        if gpu and os.environ.get("CUDA_VISIBLE_DEVICES") != gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            nvidia_gpus.cache_clear()

    def _shared(self, prepared: PreparedEngines) -> LoadBy:
        """Loads what no stream here has; the first engine of a job ends what was prepared for it."""

        def load_shared_by(job: WorkerJob, on_progress: Callable[[str], None]) -> LoadEngine:
            def load_shared(width: int, height: int, colour: Colour) -> Engine:
                wanted = job.engine(
                    width=width, height=height, matrix=colour.matrix, full_range=colour.full_range
                )
                load = partial(self._load, job, wanted)
                try:
                    return self._engines.get(engine_key(wanted), load, on_progress, wait_s=job.batch_wait_s)
                finally:
                    prepared.let_go()

            return load_shared

        return load_shared_by

    def _last_word_on(self, exc: Exception, job: WorkerJob, log: Log) -> JobImpossible | WorkerBroken:
        """What the gateway is told of the failure that ends a stream."""
        if lacks_memory(exc):
            bound = f"limits.worker_memory_bytes={job.worker_memory_bytes}"
            if self._bound.streams > 1:
                bound += f" for each of its {self._bound.streams} streams"
            reason = f"the worker needed more memory than {bound if job.worker_memory_bytes else 'there is'}"
            log.error("worker out of memory", reason=reason, exc_info=exc)
            return WorkerBroken(reason=reason)
        match exc:
            case JobError() | SourceError() | EngineError():
                log.error("stream failed", reason=str(exc))
                return JobImpossible(reason=str(exc))
            case DeviceFailed() | WorkerHung():
                log.error("worker ends", reason=str(exc))
                return WorkerBroken(reason=str(exc))
            case _:
                log.error("worker broke", held_bytes=held_bytes(), exc_info=exc)
                return WorkerBroken(reason=f"the worker broke: {type(exc).__name__}: {exc}")


def _await_job(messages: Iterator[Message], engines: PreparedEngines) -> WorkerJob | None:
    """The job, and meanwhile what there is to prepare; None where the gateway has none for us."""
    for message in messages:
        match message:
            case Prepare():
                engines.prepare(message)
            case WorkerJob():
                return message
            case _:
                return None
    return None
