"""The process of one stream: takes a job, runs it, and says how it ended.

Started as `python -m server.worker.main --fd N`, N being an inherited socket that speaks `wire.codec`.
"""

import argparse
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from engine.errors import DeviceFailed, EngineError
from engine.frame import Colour, Engine
from engine.machine import nvidia_gpus
from server.wire.logs import Log, log_to_stderr, stream_log
from server.wire.messages import (
    JobImpossible,
    Message,
    Prepare,
    WorkerBroken,
    WorkerJob,
)
from server.worker.connection import Connection
from server.worker.engines import LoadBy, engine_loader
from server.worker.ingest.source import SourceError
from server.worker.memory import held_bytes, lacks_memory, limit_memory
from server.worker.prepared import PreparedEngines
from server.worker.process.supply import LoadEngine
from server.worker.worker import JobError, Worker, WorkerHung


def serve(gateway: socket.socket, load_by: LoadBy = engine_loader) -> int:
    """Runs the job that comes from the gateway; the exit status says whether it ended as it should."""
    connection = Connection(gateway)
    messages = connection.messages()
    engines = PreparedEngines()
    job = _await_job(messages, engines)
    if job is None:
        return 1
    log = stream_log(job.stream)
    if job.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
        nvidia_gpus.cache_clear()
    limit_memory(job.worker_memory_bytes)
    try:
        worker = Worker(job, connection, log, _prepared_or(load_by, engines))
        threading.Thread(target=worker.obey, args=(messages,), name="control", daemon=True).start()
        worker.run()
    except Exception as exc:  # the boundary of the process: the gateway says why, or starts another one
        last_word = last_word_on(exc, job, log)
    else:
        return 0
    connection.send(last_word)
    connection.close()
    return 1 if isinstance(last_word, JobImpossible) else 70


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


def _prepared_or(load_by: LoadBy, engines: PreparedEngines) -> LoadBy:
    """Loads what wasn't prepared."""

    def prepared_or_load_by(job: WorkerJob, on_progress: Callable[[str], None]) -> LoadEngine:
        load = load_by(job, on_progress)

        def prepared_or_load(width: int, height: int, colour: Colour) -> Engine:
            return engines.take(job, width, height, colour) or load(width, height, colour)

        return prepared_or_load

    return prepared_or_load_by


def last_word_on(exc: Exception, job: WorkerJob, log: Log) -> JobImpossible | WorkerBroken:
    """What the gateway is told of the failure that ends this worker."""
    if lacks_memory(exc):
        bound = f"limits.worker_memory_bytes={job.worker_memory_bytes}"
        reason = f"the worker needed more memory than {bound if job.worker_memory_bytes else 'there is'}"
        log.error("%s", reason, exc_info=exc)
        return WorkerBroken(reason=reason)
    match exc:
        case JobError() | SourceError() | EngineError():
            log.error("stream failed: %s", exc)
            return JobImpossible(reason=str(exc))
        case DeviceFailed() | WorkerHung():
            log.error("worker ends: %s", exc)
            return WorkerBroken(reason=str(exc))
        case _:
            log.error("worker broke, holding %d MB", held_bytes() >> 20, exc_info=exc)
            return WorkerBroken(reason=f"the worker broke: {type(exc).__name__}: {exc}")


def main(load_by: LoadBy = engine_loader) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m server.worker.main")
    parser.add_argument("--fd", type=int, required=True)
    args = parser.parse_args()
    log_to_stderr()
    status = serve(socket.socket(fileno=args.fd), load_by)
    logging.shutdown()
    # A thread may still be inside a read that only the source's timeout ends, or build an engine; nothing is
    # left to tidy up.
    os._exit(status)


if __name__ == "__main__":
    main()
