"""One stream of a gateway elsewhere: its job gets a worker here, and what both say goes through."""

import asyncio
import contextlib
from collections.abc import Callable

from msgspec.structs import replace

from server.gateway.placement import Placement, WorkerHandle
from server.node.files import BadFile, FileCache, Incoming, with_paths
from server.wire.clock import now_ns
from server.wire.codec import ProtocolError
from server.wire.door import Visitor
from server.wire.hello import (
    ClockAsk,
    ClockTold,
    FilePart,
    FilesNeeded,
    FilesOffered,
    Refused,
    Started,
    WorkerGone,
)
from server.wire.logs import get_logger
from server.wire.messages import (
    Dropped,
    EngineLoad,
    Message,
    NeedKeyframe,
    PublishedData,
    Stop,
    WorkerBroken,
    WorkerJob,
)

log = get_logger(__name__)

# A gateway asks for the time three times a second.
_GONE_S = 5.0


class Session:
    """Ends with its worker, with the gateway, or when it is cancelled."""

    def __init__(
        self,
        gateway: Visitor,
        placement: Placement,
        files: FileCache,
        idle_cores: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._idle_cores = idle_cores
        self._placement = placement
        self._files = files
        self._offered = FilesOffered(files=())
        self._incoming: dict[str, int] = {}  # sizes of the files that are still to come
        self._file: Incoming | None = None
        self._names: dict[str, str] = {}  # what the operator calls a model, by where it is here
        self._worker: WorkerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._holds = False  # the worker was too slow for what is published

    async def run(self, stream: str) -> None:
        stopped = False
        try:
            while not stopped:
                async with asyncio.timeout(_GONE_S):
                    message = await self._gateway.next()
                if message is None:
                    break
                stopped = await self._obey(message)
            if stopped and self._pump is not None:
                await self._end()
        except (BadFile, ProtocolError, OSError) as exc:  # TimeoutError: the gateway is gone
            reason = str(exc) or f"the gateway was silent for {_GONE_S:g} s"
            log.warning("gateway left", stream=stream, reason=reason)
            self._gateway.say(Refused(reason=reason))
        finally:
            if self._file is not None:
                self._file.close()
            await asyncio.shield(self._abandon())

    async def _obey(self, message: Message) -> bool:
        """Whether the gateway is done with the stream. Raises BadFile, ProtocolError, OSError."""
        match message:
            case ClockAsk(asked_ns=asked_ns):
                heard_ns = now_ns()
                at_work = self._worker is None or self._worker.at_work()
                idle_cores = self._idle_cores()
                told_ns = now_ns()
                self._gateway.say(
                    ClockTold(
                        asked_ns=asked_ns,
                        heard_ns=heard_ns,
                        told_ns=told_ns,
                        at_work=at_work,
                        idle_cores=idle_cores,
                    )
                )
            case FilesOffered():
                self._offered = message
                needed = await asyncio.to_thread(self._files.lacks, message)
                sizes = {file.sha256: file.size for file in message.files}
                self._incoming = {sha256: sizes[sha256] for sha256 in needed}
                self._gateway.say(FilesNeeded(files=tuple(needed)))
            case FilePart():
                await asyncio.to_thread(self._take, message)
            case WorkerJob() if self._worker is None:
                await self._start(message)
            case Stop():
                return True
            case PublishedData():
                self._publish(message)
            case _ if self._worker is not None:
                self._worker.send(message)
            case _:
                raise ProtocolError(f"says {type(message).__name__} before its job")
        return False

    def _take(self, part: FilePart) -> None:
        if self._file is None:
            if part.sha256 not in self._incoming:
                raise BadFile(f"file {part.sha256[:16]}… was not asked for")
            self._file = self._files.open(part.sha256, self._incoming.pop(part.sha256))
        if self._file.add(part):
            self._file = None

    async def _start(self, job: WorkerJob) -> None:
        if self._incoming or self._file is not None:
            raise ProtocolError("says WorkerJob before the files that it names")
        places = await asyncio.to_thread(self._files.lay_out, self._offered)
        self._names = {place: path for path, place in places.items()}
        self._worker = await self._placement.start(with_paths(job, places))
        self._gateway.say(Started(isolated=self._worker.isolated))
        self._pump = asyncio.create_task(self._pass_on(self._worker))

    async def _pass_on(self, worker: WorkerHandle) -> None:
        """All that the worker says; its end ends the session."""
        with contextlib.suppress(OSError):
            try:
                async for message in worker.messages():
                    if isinstance(message, EngineLoad):
                        message = replace(message, model=self._names.get(message.model, message.model))
                    self._gateway.say(message)
                    await self._gateway.writer.drain()  # a slow gateway makes the worker's pictures wait
            except ProtocolError as exc:
                self._gateway.say(WorkerBroken(reason=f"the worker spoke nonsense: {exc}"))
            self._gateway.say(WorkerGone(how=await worker.stop()))
            await self._gateway.writer.drain()
        self._gateway.writer.close()

    def _publish(self, data: PublishedData) -> None:
        """What is published, to a worker that takes it; else from the next place where it can begin."""
        if self._worker is None:
            return
        if self._holds and data.kind != "start":
            return
        self._holds = not self._worker.send(data)
        if self._holds:
            self._gateway.say(Dropped(stage="decode", reason="slow_worker", count=1))
            self._gateway.say(NeedKeyframe())

    async def _end(self) -> None:
        """As the gateway asks: the worker finishes, and how is its last word."""
        assert self._worker is not None
        assert self._pump is not None
        self._pump.cancel()
        await asyncio.wait([self._pump])
        with contextlib.suppress(OSError):
            self._gateway.say(WorkerGone(how=await self._worker.stop()))
            await self._gateway.writer.drain()

    async def _abandon(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        if self._worker is not None:
            await self._worker.stop(at_once=True)
