"""One worker as a process of this machine, on one end of a socket pair."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping

from server.wire import threads
from server.wire.codec import Decoder, encode
from server.wire.messages import EngineLoad, Message, PublishedData, Stop

STOP_TIMEOUT_S = 3.0
READ_BYTES = 1 << 20
# Of what is published: some seconds of it, and a key frame at least. More would only be old.
PUBLISHED_BUFFER_BYTES = 2 << 20
# Other messages are some 50 bytes; a worker that leaves this much more unread is stuck, and the watchdog's.
SEND_BUFFER_BYTES = 8 << 20


async def start_process(module: str, environment: Mapping[str, str]) -> "LocalWorkerHandle":
    """A worker that waits for its first message; `environment` is added to ours. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, "--fd", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Its own group: Ctrl-C is the gateway's to handle, and helpers of the worker end with it.
                start_new_session=True,
                env={**os.environ, **environment},
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
    except BaseException:
        ours.close()
        raise
    return LocalWorkerHandle(process, reader, writer)


class LocalWorkerHandle:
    """A worker process and our end of its socket."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.ended = asyncio.create_task(process.wait())  # its exit status
        self.on_engine: Callable[[EngineLoad], None] = lambda load: None  # hears what the worker says of that

    @property
    def pid(self) -> int:
        return self._process.pid

    async def messages(self) -> AsyncIterator[Message]:
        decoder = Decoder()
        try:
            while data := await self._reader.read(READ_BYTES):
                for message in decoder.feed(data):
                    if isinstance(message, EngineLoad):
                        self.on_engine(message)
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

    def at_work(self) -> bool:
        return threads.at_work(self.pid)

    def stopped(self) -> bool:
        return threads.stopped(self.pid)

    async def stop(self, *, at_once: bool = False) -> str:
        self.send(Stop())
        try:
            if not at_once:
                await asyncio.wait_for(asyncio.shield(self.ended), STOP_TIMEOUT_S)
        except TimeoutError:
            pass
        finally:
            self.kill()
            self._writer.close()
        status = await asyncio.shield(self.ended)
        if status < 0:
            return f"the worker was ended by {signal.Signals(-status).name}"
        return f"the worker ended with status {status}"

    def kill(self) -> None:
        """Ends it at once, with all that it has started."""
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
