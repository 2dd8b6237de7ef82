"""The process of one stream: its pipeline wired together, and the gateway at the other end of a socket.

Started as `python -m server.worker --fd N`, N being an inherited socket that speaks `server.messages`.
"""

import argparse
import logging
import os
import resource
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress

from engine.errors import EngineError
from engine.frame import Colour, Engine
from server.ingest.live import LiveIngest
from server.ingest.source import SourceError, open_source
from server.messages import (
    Codec,
    Dropped,
    Failed,
    Heartbeat,
    Message,
    RequestKeyframe,
    SetPlain,
    Stage,
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


class Gateway:
    """The worker's end of the socket. `send`, for any thread, blocks while the gateway is slow: the mailboxes
    before the encoder drop then, and nothing piles up behind it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._codec = Codec()
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Silent once the gateway has gone: the reader sees it and ends the process."""
        data = Codec.encode(message)
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def receive(self) -> list[Message] | None:
        """The next messages; None once the gateway has gone."""
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:
            return None
        return self._codec.feed(data) if data else None


class Worker:
    """One stream, from its source to the gateway."""

    def __init__(self, job: WorkerJob, gateway: Gateway, load: LoadEngine | None = None) -> None:
        self.stop = threading.Event()
        self._gateway = gateway
        self._drops: Counter[tuple[Stage, str]] = Counter()
        self._drops_lock = threading.Lock()
        log = logging.LoggerAdapter(logging.getLogger("livesr.worker"), {"stream": job.stream})
        self._log = log
        ingest = LiveIngest(
            open_source(job.source, loop=job.loop, timeout_s=job.source_timeout_s, stop=self.stop),
            max_size=(job.max_width, job.max_height),
            timeout_s=job.source_timeout_s,
            send=gateway.send,
            on_drop=self._drop,
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
        self._pipeline = Pipeline(
            produce=ingest.run,
            load=load or engine_loader(job),
            lanes=job.lanes,
            consume=self.publisher.publish,
            on_drop=self._drop,
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

    def _report(self) -> None:
        with self._drops_lock:
            drops, self._drops = self._drops, Counter()
        for (stage, reason), count in drops.items():
            self._gateway.send(Dropped(stage=stage, reason=reason, count=count))
            self._log.warning("%d frames dropped before %s: %s", count, stage, reason)
        if self._pipeline.silent_s() < _SILENCE_S:
            times = os.times()
            self._gateway.send(
                Heartbeat(
                    queues=self._pipeline.queues(), rss_bytes=_rss_bytes(), cpu_s=times.user + times.system
                )
            )

    def _drop(self, stage: Stage, reason: str) -> None:
        with self._drops_lock:
            self._drops[stage, reason] += 1


def engine_loader(job: WorkerJob) -> LoadEngine:
    def load(width: int, height: int, colour: Colour) -> Engine:
        from engine.load import load_engine

        return load_engine(
            job.model,
            width=width,
            height=height,
            colour=colour,
            backend=job.backend,
            threads=job.engine_threads,
        )

    return load


def obey(worker: Worker, gateway: Gateway) -> None:
    """Does what the gateway says until it says stop, or is gone."""
    while (messages := gateway.receive()) is not None:
        for message in messages:
            match message:
                case RequestKeyframe(rendition=rendition):
                    worker.publisher.request_keyframe(rendition)
                case SetPlain(enabled=enabled):
                    worker.publisher.set_plain(enabled)
                case Stop():
                    worker.stop.set()
                    return
    worker.stop.set()


def serve(connection: socket.socket) -> int:
    """Runs the job that comes over the connection; the exit status says whether it ended as it should."""
    gateway = Gateway(connection)
    first = gateway.receive()
    while first == []:
        first = gateway.receive()
    if not first or not isinstance(first[0], WorkerJob):
        return 1
    job = first[0]
    log = logging.LoggerAdapter(logging.getLogger("livesr.worker"), {"stream": job.stream})
    try:
        worker = Worker(job, gateway)
        threading.Thread(target=obey, args=(worker, gateway), name="control", daemon=True).start()
        worker.run()
    except (SourceError, EngineError, ValueError) as exc:
        log.error("stream failed: %s", exc)
        gateway.send(Failed(reason=str(exc)))
        return 1
    return 0


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m server.worker")
    parser.add_argument("--fd", type=int, required=True)
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s [%(stream)s] %(message)s",
        stream=sys.stderr,
    )
    return serve(socket.socket(fileno=args.fd))


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # A thread may still be inside a read that only the source's timeout ends; nothing is left to tidy up.
    os._exit(status)
