"""Workers as processes of this machine, each on one end of a socket pair."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from engine.backends.require_gpu import GPU_BACKENDS
from engine.machine import Gpu
from server.gateway.placement import SlotUse, WorkerHandle
from server.gateway.placement.slots import GpuSlots
from server.wire.codec import Decoder, encode
from server.wire.messages import Message, PublishedData, Stop, WorkerJob

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 3.0
READ_BYTES = 1 << 20
# Of what is published: some seconds of it, and a key frame at least. More would only be old.
PUBLISHED_BUFFER_BYTES = 2 << 20
# Other messages are some 50 bytes; a worker that leaves this much more unread is stuck, and the watchdog's.
SEND_BUFFER_BYTES = 8 << 20


class LocalPlacement:
    """One process for each job. A worker ends by itself when its socket does, however the gateway ended.

    On a machine with GPUs each worker whose job may use one sees one GPU, and no more workers share it than
    there are slots."""

    def __init__(
        self, gpus: Sequence[Gpu] = (), slots_per_gpu: int = 1, *, module: str = "server.worker.main"
    ) -> None:
        self._slots = GpuSlots(gpus, slots_per_gpu)
        self._module = module

    def gpu_slots(self) -> Sequence[SlotUse]:
        return self._slots.usage()

    async def start(self, job: WorkerJob) -> WorkerHandle:
        gpu = self._slots.take() if self.gpu_slots() and _may_use_gpu(job) else None

        def end() -> None:
            if gpu is not None:
                self._slots.give_back(gpu)

        try:
            worker = await self._start(gpu, end)
        except BaseException:
            end()
            raise
        if gpu is not None:
            log.info("stream %s: its worker is on GPU %d, %s", job.stream, gpu.index, gpu.name)
        worker.send(job)
        return worker

    async def _start(self, gpu: Gpu | None, on_end: Callable[[], None]) -> "LocalWorkerHandle":
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", self._module, "--fd", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    # Its own group: Ctrl-C is the gateway's to handle, and helpers of the worker end with it.
                    start_new_session=True,
                    env=None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid},
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        except BaseException:
            ours.close()
            raise
        return LocalWorkerHandle(process, reader, writer, on_end)


def _may_use_gpu(job: WorkerJob) -> bool:
    """Compiled artifacts are for the CPU."""
    if job.backend is None:
        return not Path(job.model).is_dir()
    return job.backend in GPU_BACKENDS


class LocalWorkerHandle:
    """A worker process and our end of its socket. `on_end` is called once the process is gone."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_end: Callable[[], None],
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ended = asyncio.create_task(self._reap(on_end))

    async def _reap(self, on_end: Callable[[], None]) -> int:
        status = await self._process.wait()
        on_end()
        return status

    @property
    def pid(self) -> int:
        return self._process.pid

    async def messages(self) -> AsyncIterator[Message]:
        decoder = Decoder()
        try:
            while data := await self._reader.read(READ_BYTES):
                for message in decoder.feed(data):
                    yield message
        except ConnectionError:
            return  # as good as the end: the process is gone

    def send(self, message: Message) -> bool:
        transport = self._writer.transport
        most = PUBLISHED_BUFFER_BYTES if isinstance(message, PublishedData) else SEND_BUFFER_BYTES
        if transport.is_closing() or transport.get_write_buffer_size() >= most:
            return False
        self._writer.write(encode(message))
        return True

    async def stop(self, *, at_once: bool = False) -> str:
        self.send(Stop())
        try:
            if not at_once:
                await asyncio.wait_for(asyncio.shield(self._ended), STOP_TIMEOUT_S)
        except TimeoutError:
            pass
        finally:
            self._kill_group()
            self._writer.close()
        status = await asyncio.shield(self._ended)
        if status < 0:
            return f"the worker was ended by {signal.Signals(-status).name}"
        return f"the worker ended with status {status}"

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
