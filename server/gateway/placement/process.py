"""A worker process of this machine, and the streams in it: each has a socket that is handed down to it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from engine.machine import Gpu
from server.wire import threads
from server.wire.codec import Decoder, encode
from server.wire.logs import for_children, get_logger
from server.wire.messages import EngineLoad, Message, Opened, PublishedData, Stop

log = get_logger(__name__)

STOP_TIMEOUT_S = 3.0
# One that has broken is seldom slow to go, and its next worker would rather find room in the same process.
BROKEN_TIMEOUT_S = 1.0
# Beyond the timeout of its source, which ends any read: what goes on longer never ends. A process may take as
# long to start.
LINGER_S = 30.0
READ_BYTES = 1 << 20
# Of what is published: some seconds of it, and a key frame at least. More would only be old.
PUBLISHED_BUFFER_BYTES = 2 << 20
# Other messages are some 50 bytes; a worker that leaves this much more unread is stuck, and the watchdog's.
SEND_BUFFER_BYTES = 8 << 20


async def start_process(module: str, environment: Mapping[str, str]) -> "HostProcess":
    """A process that waits for streams; `environment` is added to ours. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, "--fd", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # Its own group: Ctrl-C is the gateway's to handle, and helpers of the worker end with it.
                start_new_session=True,
                env={**os.environ, **for_children(), **environment},
            )
    except BaseException:
        ours.close()
        raise
    return HostProcess(process, ours)


class HostProcess:
    """A worker process and the streams in it; it ends with the last of them."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        control.setblocking(False)
        self._closed = self._killed = False
        # With those that were given up, until nothing is left of them.
        self.streams: list[LocalWorkerHandle] = []
        self.gpu: Gpu | None = None
        self.isolated = False  # its stream is kept from others
        # Hears which streams may have been the cause where it died, or one in it broke.
        self.on_trouble: Callable[[Sequence[str]], None] = lambda streams: None
        self.ended = asyncio.create_task(process.wait())  # its exit status
        self.ended.add_done_callback(lambda _: self._on_end())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self, stream: str) -> "LocalWorkerHandle":
        """A connection for that stream, "" for one that has yet to get its name. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        handle = LocalWorkerHandle(self, stream, reader, writer)
        self.streams.append(handle)
        return handle

    @property
    def takes_another(self) -> bool:
        """Whether a further stream may start here: not while one that was given up is still there, nor where
        the process has said, by closing its side, that it is of no more use."""
        if self._closed or any(stream.given_up for stream in self.streams):
            return False
        try:
            return bool(self._control.recv(1))
        except BlockingIOError:
            return True
        except OSError:
            return False

    @property
    def wanted(self) -> bool:
        """Whether any stream in it goes on."""
        return any(not stream.given_up for stream in self.streams)

    def left_by(self, stream: "LocalWorkerHandle") -> None:
        """Nothing of that stream is in it any more."""
        if stream in self.streams:
            self.streams.remove(stream)
        if not self.streams:
            self.let_go()

    def let_go(self) -> None:
        """Has it end: no stream follows."""
        self._closed = True
        self._control.close()

    def kill(self) -> None:
        """Ends it at once, with all that it has started."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self, timeout_s: float) -> str:
        """Has it end, by force after the timeout, and says how it did."""
        self.let_go()
        try:
            if timeout_s:
                await asyncio.wait([self.ended], timeout=timeout_s)
        finally:
            if not self.ended.done():
                self.kill()
        await asyncio.shield(self.ended)
        return self.how_it_ended

    @property
    def how_it_ended(self) -> str:
        """Once it has."""
        status = self.ended.result()
        if status < 0:
            return f"the worker was ended by {signal.Signals(-status).name}"
        return f"the worker ended with status {status}"

    def at_work(self) -> bool:
        return threads.at_work(self.pid)

    def stopped(self) -> bool:
        return threads.stopped(self.pid)

    def _on_end(self) -> None:
        streams = tuple(self.streams)
        if not self._killed:
            self.on_trouble([stream.stream for stream in streams if not stream.asked_to_end])
        for stream in streams:
            stream.on_end()
        self.let_go()


class LocalWorkerHandle:
    """The worker closes the connection once nothing of the stream is left in its process."""

    def __init__(
        self, host: HostProcess, stream: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.host = host
        self.stream = stream
        self.source_timeout_s = 0.0
        self.given_up = self.asked_to_end = False  # the latter: rather than that the process has ended it
        # Hears what the worker says of its engine and its source.
        self.on_facts: Callable[[EngineLoad | Opened], None] = lambda facts: None
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()  # nothing of it is left in the process
        self.left: asyncio.Future[None] = loop.create_future()  # or nobody waits for that any longer
        self._reader = reader
        self._writer = writer
        self._closed_by_worker = self._blamed = False
        self._rest: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.host.pid

    @property
    def isolated(self) -> bool:
        return self.host.isolated

    @property
    def elsewhere(self) -> None:
        return None

    @property
    def lost(self) -> bool:
        return False

    async def messages(self) -> AsyncIterator[Message]:
        decoder = Decoder()
        async for data in self._received():
            for message in decoder.feed(data):
                if isinstance(message, EngineLoad | Opened):
                    self.on_facts(message)
                yield message

    async def _received(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionError):  # as good as the end: the process is gone
            while data := await self._reader.read(READ_BYTES):
                yield data
        self._closed_by_worker = True

    def send(self, message: Message) -> bool:
        transport = self._writer.transport
        most = PUBLISHED_BUFFER_BYTES if isinstance(message, PublishedData) else SEND_BUFFER_BYTES
        if transport.is_closing() or transport.get_write_buffer_size() >= most:
            return False
        self._writer.write(encode(message))
        return True

    def at_work(self) -> bool:
        return self.host.at_work()

    async def stop(self, *, at_once: bool = False) -> str:
        """Ends the process with its last stream. One that leaves others behind has some time to go; if it
        doesn't, they are started anew elsewhere: a thread that never ends may cost them a core."""
        if self.given_up:
            return await self._how_it_ended()
        self.given_up = True
        self.asked_to_end = not self._closed_by_worker
        if at_once and self.asked_to_end:
            self._blame()
        if self.host.wanted and not self._closed_by_worker:
            self.send(Stop())
            self._rest = asyncio.create_task(self._read_rest())
            await asyncio.wait([self.ended], timeout=BROKEN_TIMEOUT_S if at_once else STOP_TIMEOUT_S)
            if not self.ended.done():
                self._linger()
            return await self._how_it_ended()
        if self.host.wanted:
            # The process has died, unless it ended this stream for no reason that it gave.
            await asyncio.wait([self.host.ended], timeout=STOP_TIMEOUT_S)
            self.on_end()
            return await self._how_it_ended()
        self.send(Stop())
        try:
            return await self.host.end(0.0 if at_once else STOP_TIMEOUT_S)
        finally:
            self._writer.close()

    async def _how_it_ended(self) -> str:
        if not self.host.wanted:
            return await self.host.end(0.0)
        if self.host.ended.done():
            return self.host.how_it_ended
        return "the worker ended the stream" if self.ended.done() else "the worker doesn't end the stream"

    async def _read_rest(self) -> None:
        async for _ in self._received():
            pass
        self.on_end()

    def _linger(self) -> None:
        within_s = self.source_timeout_s + LINGER_S
        log.warning("worker lingers", stream=self.stream, pid=self.pid, killed_in_s=within_s)
        asyncio.get_running_loop().call_later(within_s, self._end_host)
        self.left.set_result(None)

    def _end_host(self) -> None:
        if not self.ended.done():
            log.error("worker killed", stream=self.stream, pid=self.pid, reason="it never ended its stream")
            self._blame()
            self.host.let_go()
            self.host.kill()

    def _blame(self) -> None:
        if not self._blamed:
            self._blamed = True
            self.host.on_trouble([self.stream])

    def on_end(self) -> None:
        """Nothing of it is left, or the process has ended."""
        for future in (self.ended, self.left):
            if not future.done():
                future.set_result(None)
        self._writer.close()
        self.host.left_by(self)
