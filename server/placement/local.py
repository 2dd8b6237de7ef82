"""Workers as processes of this machine, each on one end of a socket pair."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

from server.messages import Codec, Message, Stop, WorkerJob
from server.placement import Worker

STOP_TIMEOUT_S = 3.0
READ_BYTES = 1 << 20
# Control messages are some 50 bytes; a worker that leaves this much unread is stuck, and the watchdog's.
SEND_BUFFER_BYTES = 1 << 16


class LocalPlacement:
    """One process for each job. A worker ends by itself when its socket does, however the gateway ended."""

    async def start(self, job: WorkerJob) -> Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "server.worker", "--fd", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    # Its own group: Ctrl-C is the gateway's to handle, and helpers of the worker end with it.
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        except BaseException:
            ours.close()
            raise
        worker = LocalWorker(process, reader, writer)
        worker.send(job)
        return worker


class LocalWorker:
    """A worker process and our end of its socket."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        return self._process.pid

    async def messages(self) -> AsyncIterator[Message]:
        codec = Codec()
        try:
            while data := await self._reader.read(READ_BYTES):
                for message in codec.feed(data):
                    yield message
        except ConnectionError:
            return  # as good as the end: the process is gone

    def send(self, message: Message) -> None:
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < SEND_BUFFER_BYTES:
            self._writer.write(Codec.encode(message))

    async def stop(self, *, at_once: bool = False) -> str:
        self.send(Stop())
        try:
            if not at_once:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            pass
        finally:
            self._kill_group()
            self._writer.close()
        status = await self._process.wait()
        if status < 0:
            return f"the worker was ended by {signal.Signals(-status).name}"
        return f"the worker ended with status {status}"

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
