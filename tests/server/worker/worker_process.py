"""The real worker process, spoken to as the gateway does: a stream has one end of a socket pair."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import av

from server.settings import DEFAULT_MODEL
from server.wire.codec import Decoder, encode
from server.wire.messages import (
    Message,
    Rendition,
    VideoPacket,
    Watch,
    WorkerJob,
)
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.picture import plane_view

JOB = WorkerJob(
    stream="test",
    source="synthetic:?size=160x96&fps=25",
    policy=None,
    loop=True,
    model=DEFAULT_MODEL,
    backend=None,
    lanes=2,
    engine_threads=1,
    batch_wait_s=0.003,
    encoder="libx264",
    preset="ultrafast",
    bitrate_bps=0,
    keyframe_interval_s=2.0,
    max_width=1920,
    max_height=1080,
    worker_memory_bytes=8 << 30,
    source_timeout_s=3.0,
    engine_patience_s=60.0,
    source_when="always",
    renditions=("upscaled", "source"),
    ladder=(),
    latency_budget_s=0.0,
)


class WorkerProcess:
    """One `python -m server.worker.main` and what it has said."""

    def __init__(
        self, job: WorkerJob, module: str, watched: tuple[Rendition, ...], before: tuple[Message, ...]
    ) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        self.socket, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [b"+"], [theirs.fileno()])
        self._decoder = Decoder()
        self.messages: list[Message] = []
        for message in before:
            self.send(message)
        self.send(job)
        self.send(Watch(renditions=watched))

    def send(self, message: Message) -> None:
        self.socket.sendall(encode(message))

    def until(self, done: Callable[["WorkerProcess"], object], timeout_s: float = 40.0) -> "WorkerProcess":
        """Reads until `done`; fails the test where the worker ends or the time runs out before."""
        deadline = time.monotonic() + timeout_s
        while not done(self):
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.socket.recv(1 << 16)
            assert data, f"the worker ended: {self.messages[-3:]}"
            self.messages += self._decoder.feed(data)
        return self

    def of(self, kind: type) -> list:
        return [message for message in self.messages if isinstance(message, kind)]

    def video(self, rendition: str = "upscaled") -> list[VideoPacket]:
        return [packet for packet in self.of(VideoPacket) if packet.rendition == rendition]

    def until_closed(self) -> "WorkerProcess":
        """Reads until nothing of the stream is left."""
        self.socket.settimeout(20)
        while data := self.socket.recv(1 << 16):
            self.messages += self._decoder.feed(data)
        return self

    def ended(self) -> tuple[int, str]:
        """Exit status and log, once the gateway wants no more of it."""
        self.control.close()
        _, log = self.process.communicate(timeout=10)
        return self.process.returncode, log.decode()

    def close(self) -> None:
        self.control.close()
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=5)
            return
        self.process.kill()
        self.process.communicate()


def numbers(packets: list[VideoPacket], scale: int) -> list[int | None]:
    """What a viewer who joined at the first packet sees."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet.payload))]
    frames += decoder.decode(None)
    return [read_frame_number(plane_view(frame, 0), scale) for frame in frames]
