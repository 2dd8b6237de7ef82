"""The process of one stream: its pipeline wired together, and the gateway at the other end of a socket.

Started as `python -m server.worker --fd N`, N being an inherited socket that speaks `server.messages`.
"""

import argparse
import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from engine.errors import EngineError
from engine.frame import Colour, Engine
from engine.load import load_engine
from server.drops import Drops
from server.ingest.source import SourceError, open_source
from server.live import LiveIngest
from server.logs import Log, log_to_stderr, stream_log
from server.messages import (
    Codec,
    Failed,
    Heartbeat,
    Message,
    RequestKeyframe,
    SetPlain,
    Stop,
    WorkerJob,
)
from server.process.pipeline import Pipeline
from server.process.upscale import LoadEngine
from server.publish.video import VideoPublisher

_HEARTBEAT_S = 0.5
# A thread that has made no step for so long hangs: the heartbeat stops, and the gateway ends the process.
_SILENCE_S = 10.0
_PAGE_BYTES = resource.getpagesize()


class JobError(Exception):
    """A job that can never be done as it is; the message names the key, its value and the rule."""


class Gateway:
    """The worker's end of the socket. `send`, for any thread, blocks while the gateway is slow: the mailboxes
    before the encoder drop then, and nothing piles up behind it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Silent once the gateway has gone: the reader sees it and ends the process."""
        data = Codec.encode(message)
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def messages(self) -> Iterator[Message]:
        """Until the gateway has gone."""
        codec = Codec()
        with suppress(ConnectionResetError):
            while data := self._socket.recv(1 << 16):
                yield from codec.feed(data)


class Worker:
    """One stream, from its source to the gateway."""

    def __init__(self, job: WorkerJob, gateway: Gateway, log: Log) -> None:
        """Raises JobError."""
        self.stop = threading.Event()
        self._gateway = gateway
        self._drops = Drops(log)
        try:
            ingest = LiveIngest(
                open_source(job.source, loop=job.loop, timeout_s=job.source_timeout_s, stop=self.stop),
                max_size=(job.max_width, job.max_height),
                timeout_s=job.source_timeout_s,
                send=gateway.send,
                on_drop=self._drops.add,
                on_open=self._on_open,
                stop=self.stop,
                log=log,
            )
            self.publisher = VideoPublisher(
                encoder=job.encoder,
                preset=job.preset,
                bitrate_bps=job.bitrate_bps,
                keyframe_interval_s=job.keyframe_interval_s,
                send=gateway.send,
                audio_format=ingest.audio_format,
                log=log,
            )
        except ValueError as exc:
            raise JobError(str(exc)) from exc
        self._pipeline = Pipeline(
            produce=ingest.run,
            load=engine_loader(job),
            lanes=job.lanes,
            consume=self.publisher.publish,
            on_drop=self._drops.add,
            log=log,
        )

    def run(self) -> None:
        """Until stopped. Raises what ended the pipeline; SourceError where the source is over."""
        self._pipeline.start()
        while self._pipeline.running and not self.stop.wait(_HEARTBEAT_S):
            self._report()
        self._report()
        if self.stop.is_set():
            self._pipeline.abort()
        self._pipeline.join(timeout_s=1.0)
        if not self.stop.is_set():
            raise SourceError("the source has ended")

    def obey(self, messages: Iterator[Message]) -> None:
        """Does what the gateway says until it says stop, or is gone."""
        for message in messages:
            match message:
                case RequestKeyframe(rendition=rendition):
                    self.publisher.request_keyframe(rendition)
                case SetPlain(enabled=enabled):
                    self.publisher.set_plain(enabled)
                case Stop():
                    break
        self.stop.set()

    def _on_open(self) -> None:
        self.publisher.request_keyframe("upscaled")
        self.publisher.request_keyframe("plain")

    def _report(self) -> None:
        for dropped in self._drops.take():
            self._gateway.send(dropped)
        if self._pipeline.silent_s() < _SILENCE_S:
            times = os.times()
            self._gateway.send(
                Heartbeat(
                    queues=self._pipeline.queues(), rss_bytes=_rss_bytes(), cpu_s=times.user + times.system
                )
            )


def engine_loader(job: WorkerJob) -> LoadEngine:
    def load(width: int, height: int, colour: Colour) -> Engine:
        try:
            return load_engine(
                job.model,
                width=width,
                height=height,
                colour=colour,
                backend=job.backend,
                threads=job.engine_threads,
                lanes=job.lanes,
            )
        except ValueError as exc:  # a size that no engine takes
            raise EngineError(str(exc)) from exc

    return load


def serve(connection: socket.socket) -> int:
    """Runs the job that comes over the connection; the exit status says whether it ended as it should."""
    gateway = Gateway(connection)
    messages = gateway.messages()
    job = next(messages, None)
    if not isinstance(job, WorkerJob):
        return 1
    log = stream_log(job.stream)
    try:
        worker = Worker(job, gateway, log)
        threading.Thread(target=worker.obey, args=(messages,), name="control", daemon=True).start()
        worker.run()
    except (JobError, SourceError, EngineError) as exc:
        log.error("stream failed: %s", exc)
        gateway.send(Failed(reason=str(exc)))
        return 1
    except Exception:  # the boundary of the process: the gateway starts another one
        log.exception("worker broke")
        return 70
    return 0


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m server.worker")
    parser.add_argument("--fd", type=int, required=True)
    args = parser.parse_args()
    log_to_stderr()
    return serve(socket.socket(fileno=args.fd))


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # A thread may still be inside a read that only the source's timeout ends; nothing is left to tidy up.
    os._exit(status)
