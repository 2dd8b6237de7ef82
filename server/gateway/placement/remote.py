"""A worker on another machine, or a stream's home at another gateway: over TLS, a connection for each."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from server.gateway.placement import Elsewhere
from server.gateway.placement.files import offer_files
from server.gateway.placement.process import PUBLISHED_BUFFER_BYTES, SEND_BUFFER_BYTES
from server.gateway.placement.translation import Translation
from server.wire.clock import now_ns
from server.wire.codec import ProtocolError, encode
from server.wire.door import READ_BYTES
from server.wire.hello import (
    PART_BYTES,
    ClockAsk,
    ClockTold,
    FilePart,
    FilesNeeded,
    FilesOffered,
    Hello,
    Refused,
    Started,
    Subscribe,
    Ticket,
    Welcome,
    WorkerGone,
    decoder,
    wire_version,
)
from server.wire.logs import get_logger
from server.wire.messages import EngineLoad, Message, Opened, PublishedData, Stop, WorkerBroken, WorkerJob
from server.wire.offset import ClockJumped
from server.wire.tls import fingerprint, gateway_context

log = get_logger(__name__)

M = TypeVar("M", bound=Message)

CONNECT_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 4.0  # the host's own is three
# A host is asked for its time at each third tick, and gone where it says nothing for nine: 0.9 s, in turns of
# the event loop, so that a gateway that was held up itself doesn't take it for the host's silence.
_TICK_S, _ASK_TICKS, _SILENT_TICKS = 0.1, 3, 9
# So often, at moments so far apart, it says that the worker isn't at work: then the worker's silence counts.
_IDLE_TELLS, _APART_NS = 3, 150_000_000
# Round trips before the job, whose times are translated by them.
_FIRST_ASKS = 4
_FILES_TIMEOUT_S, _START_TIMEOUT_S = 120.0, 20.0
# So many say hello at once, of however many wait to: a handshake takes milliseconds of both sides, and all of
# a thousand together would take longer than each of them may.
_HELLOS_AT_ONCE = 16
_of_hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
# At each gateway: one that is lost must hold up no other, nor the workers that its streams get.
_AtGateways = WeakValueDictionary[tuple[str, int], asyncio.Semaphore]
_at_gateways: WeakKeyDictionary[asyncio.AbstractEventLoop, _AtGateways] = WeakKeyDictionary()


class HostUnreachable(OSError):
    """The host isn't there, isn't the one that it should be, or refuses: another machine may do better."""


class HostRefuses(HostUnreachable):
    """The host is there, and says why not."""


async def connect(ticket: Ticket, job: WorkerJob) -> "RemoteWorkerHandle":
    """Starts the job there. Raises HostUnreachable."""
    turns = _of_hosts.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_HELLOS_AT_ONCE))
    async with turns:
        handle = await _say_hello(ticket, job.stream, f"the host on {ticket.node}")
    return await _begin(handle, job)


async def subscribe(ticket: Ticket, stream: str) -> "RemoteWorkerHandle":
    """Hears that stream from the gateway that is its home, as from a worker. Raises HostUnreachable."""
    there = f"the gateway {ticket.node}"
    at_gateways = _at_gateways.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    turns = at_gateways.setdefault((ticket.host, ticket.port), asyncio.Semaphore(_HELLOS_AT_ONCE))
    try:
        # The time for the turn is bounded, too: by then another gateway may be the stream's home.
        async with asyncio.timeout(CONNECT_TIMEOUT_S), turns:
            handle = await _say_hello(ticket, stream, there)
    except TimeoutError:
        why = f"no answer within {CONNECT_TIMEOUT_S:g} s"
        raise HostUnreachable(f"{there} can't be reached: {why}") from None
    return await _begin(handle, None)


async def _begin(handle: "RemoteWorkerHandle", job: WorkerJob | None) -> "RemoteWorkerHandle":
    try:
        await handle.begin(job)
    except BaseException:
        handle.abort()
        raise
    return handle


async def _say_hello(ticket: Ticket, stream: str, there: str) -> "RemoteWorkerHandle":
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                ticket.host, ticket.port, ssl=gateway_context(), server_hostname="", limit=READ_BYTES
            )
            _check_certificate(writer, ticket, there)
            handle = RemoteWorkerHandle(ticket, stream, there, reader, writer)
            handle.write(Hello(version=wire_version(), stream=stream, secret=ticket.secret))
            await handle.expect(Welcome)
            return handle
    except BaseException as exc:
        if writer is not None:
            writer.transport.abort()
        if isinstance(exc, HostUnreachable) or not isinstance(exc, OSError | ProtocolError):
            raise
        why = str(exc) or f"no answer within {CONNECT_TIMEOUT_S:g} s"
        raise HostUnreachable(f"{there} can't be reached: {why}") from exc


def _check_certificate(writer: asyncio.StreamWriter, ticket: Ticket, there: str) -> None:
    tls = writer.get_extra_info("ssl_object")
    found = fingerprint(tls.getpeercert(binary_form=True) or b"")
    if not hmac.compare_digest(found, ticket.fingerprint):
        raise HostUnreachable(
            f"{ticket.host}:{ticket.port} is not {there}: its certificate is "
            f"{found[:16]}…, not {ticket.fingerprint[:16]}…"
        )


class RemoteWorkerHandle:
    """Made by `connect` or `subscribe`. All times that it gives and takes are of this machine's clock."""

    def __init__(
        self,
        ticket: Ticket,
        stream: str,
        there: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """`there`: the host or gateway, as errors name it."""
        self.ticket = ticket
        self._there = there
        self.stream = stream
        self.isolated = False
        # Hears what the worker says of its engine and its source.
        self.on_facts: Callable[[EngineLoad | Opened], None] = lambda facts: None
        # Hears, once, that nothing of the stream is there any more; before another place is asked for.
        self.on_left: Callable[[], None] = lambda: None
        self.lost = False  # the host was, rather than that it ended the worker
        self._reader = reader
        self._writer = writer
        self._decoder = decoder()
        self._translation = Translation()
        self._waiting: list[Message] = []
        self._silent_ticks = 0
        self._idle_cores = 0.0  # of its machine
        self._idle_told_ns = 0
        self._idle_tells = 0  # since the worker was heard, or was at work
        self._how = ""
        self._given_up = False
        self._asking: asyncio.Task[None] | None = None

    @property
    def elsewhere(self) -> Elsewhere:
        clock = self._translation.clock
        return Elsewhere(
            node=self.ticket.node,
            clock_offset_s=clock.offset_ns / 1e9 if clock.known else 0.0,
            clock_error_s=clock.error_ns / 1e9 if clock.known else 0.0,
            idle_cores=self._idle_cores,
        )

    async def begin(self, job: WorkerJob | None) -> None:
        """Without a job it only listens. Raises HostUnreachable where the host is lost meanwhile, or
        refuses."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                for _ in range(_FIRST_ASKS):
                    self.write(ClockAsk(asked_ns=now_ns()))
                    await self.expect(ClockTold)
            if job is not None:
                async with asyncio.timeout(_FILES_TIMEOUT_S):
                    await self._offer(job)
            async with asyncio.timeout(_START_TIMEOUT_S):
                self.write(Subscribe() if job is None else self._translation.to_host(job))
                started = await self.expect(Started)
        except HostUnreachable:
            raise
        except (OSError, ProtocolError, ClockJumped) as exc:
            raise HostUnreachable(self._shown(str(exc) or "no answer in time")) from exc
        self.isolated = started.isolated
        self._asking = asyncio.create_task(self._ask())

    async def _offer(self, job: WorkerJob) -> None:
        """Sends the files that the job names and the host lacks."""
        offered, found = await asyncio.to_thread(offer_files, job)
        if not offered:
            return
        self.write(FilesOffered(files=offered))
        for sha256 in (await self.expect(FilesNeeded)).files:
            if sha256 not in found:
                raise ProtocolError(f"wants a file that was not offered, {sha256[:16]}…")
            log.info("file goes to node", stream=self.stream, node=self.ticket.node, file=str(found[sha256]))
            await self._send_file(sha256, found[sha256])

    async def _send_file(self, sha256: str, path: Path) -> None:
        with path.open("rb") as file:
            while data := await asyncio.to_thread(file.read, PART_BYTES):
                self.write(FilePart(sha256=sha256, data=data))
                await self._writer.drain()
        self.write(FilePart(sha256=sha256, data=b""))

    async def expect(self, kind: type[M]) -> M:
        """The next message, which has to be one. Raises HostUnreachable for a refusal and at the end,
        ProtocolError."""
        while True:
            while self._waiting:
                message = self._waiting.pop(0)
                if isinstance(message, Refused):
                    raise HostRefuses(f"{self._there} refuses: {message.reason}")
                if isinstance(message, kind):
                    return message
                if not isinstance(message, ClockTold):
                    raise ProtocolError(f"says {type(message).__name__} before {kind.__name__}")
            if not await self._read():
                raise HostUnreachable(self._shown(self._how or "it closed the connection"))

    async def _read(self) -> bool:
        """More messages, where there are any. Raises ProtocolError, ClockJumped."""
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError:  # as good as the end
            data = b""
        if not data:
            return False
        self._silent_ticks = 0
        for message in self._decoder.feed(data):
            self._count_idle(message)
            if isinstance(message, ClockTold):
                self._idle_cores = message.idle_cores
                self._translation.hear(message, now_ns())
            self._waiting.append(message)
        return True

    def _count_idle(self, message: Message) -> None:
        """A host that was held up answers all at once: that tells of one moment."""
        if not isinstance(message, ClockTold) or message.at_work:
            self._idle_tells = 0
        elif message.heard_ns - self._idle_told_ns > _APART_NS:
            self._idle_tells, self._idle_told_ns = self._idle_tells + 1, message.heard_ns

    async def messages(self) -> AsyncIterator[Message]:
        try:
            async for message in self._said():
                if isinstance(message, EngineLoad | Opened):
                    self.on_facts(message)
                yield self._translation.to_gateway(message, now_ns())
        except ClockJumped as exc:
            yield WorkerBroken(reason=self._shown(str(exc)))

    async def _said(self) -> AsyncIterator[Message]:
        """All that the worker says, until its end or the host's."""
        while True:
            while self._waiting:
                message = self._waiting.pop(0)
                match message:
                    case ClockTold():
                        continue
                    case WorkerGone(how=how) | Refused(reason=how):
                        self._how = how
                        return
                yield message
            if not await self._read():
                self.lost = not self._given_up
                self._how = self._how or self._shown("it closed the connection")
                return

    def send(self, message: Message) -> bool:
        transport = self._writer.transport
        most = PUBLISHED_BUFFER_BYTES if isinstance(message, PublishedData) else SEND_BUFFER_BYTES
        if transport.is_closing() or transport.get_write_buffer_size() >= most:
            return False
        self.write(self._translation.to_host(message))
        return True

    def write(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    def at_work(self) -> bool:
        """Unless the host has said often enough that it isn't, with nothing of the worker in between, which
        may wait in a host that is busy. Of a host that says nothing its own silence counts."""
        return self._idle_tells < _IDLE_TELLS

    async def stop(self, *, at_once: bool = False) -> str:
        if not self._given_up:
            self._given_up = True
            try:
                if not at_once and not self._how:
                    self.send(Stop())
                    await self._hear_out()
            finally:
                self.abort()
        return self._how or self._shown("its worker was ended")

    async def _hear_out(self) -> None:
        with contextlib.suppress(TimeoutError, ProtocolError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                async for _ in self.messages():
                    pass

    def abort(self) -> None:
        """Closes the connection, which ends what is left of the stream on the host."""
        if self._asking is not None:
            self._asking.cancel()
        self._writer.transport.abort()
        on_left, self.on_left = self.on_left, lambda: None
        on_left()

    async def _ask(self) -> None:
        """Asks for the time, and gives the host up where nothing comes."""
        ticks = 0
        while self._silent_ticks < _SILENT_TICKS:
            await asyncio.sleep(_TICK_S)
            self._silent_ticks += 1
            ticks += 1
            if ticks % _ASK_TICKS == 0:
                self.write(ClockAsk(asked_ns=now_ns()))
        self._how = self._shown(f"no sign of life for {_SILENT_TICKS * _TICK_S:g} s")
        self._writer.transport.abort()

    def _shown(self, what: str) -> str:
        return f"{self._there}: {what}"
