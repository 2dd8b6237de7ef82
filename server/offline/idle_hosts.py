"""Hosts whose workers do nothing, as a process: what a gateway's streams cost without their packets.

They are reached over TLS on the loopback: connections, signs of life, heartbeats and clocks are as they are
between machines.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from server.gateway.placement import SlotUse
from server.gateway.placement.remote import RemoteWorkerHandle, connect
from server.node.door import Door
from server.wire.hello import Ticket
from server.wire.messages import Alive, Heartbeat, Message, Stop, WorkerJob

_ALIVE_S, _BEATS = 0.1, 5  # as a worker says it: a heartbeat with each fifth sign of life


class IdleWorker:
    """Says what a worker says while nobody watches."""

    isolated = False
    elsewhere = None
    lost = False

    def __init__(self, host: "IdleHost") -> None:
        self._host = host
        self._stopped = asyncio.Event()

    async def messages(self) -> AsyncIterator[Message]:
        turn = 0
        while not self._stopped.is_set():
            await asyncio.sleep(_ALIVE_S)
            turn += 1
            self._host.messages += 1
            yield Alive()
            if turn % _BEATS == 0:
                self._host.messages += 1
                yield Heartbeat(queues={"upscale": 0, "encode": 0}, rss_bytes=1 << 28, cpu_s=float(turn))

    def send(self, message: Message) -> bool:
        if isinstance(message, Stop):
            self._stopped.set()
        return True

    def at_work(self) -> bool:
        self._host.messages += 2  # the gateway has asked for the time, and is told it
        return False

    async def stop(self, *, at_once: bool = False) -> str:
        self._stopped.set()
        return "the worker ended"


class IdleHost:
    """A `Placement` of such workers. `messages`: between them and the gateway, so far."""

    def __init__(self) -> None:
        self.messages = 0

    async def start(self, job: WorkerJob) -> IdleWorker:
        return IdleWorker(self)

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> Sequence[SlotUse]:
        return ()


class IdleHosts:
    """Their process, as a gateway's `Placement`. `started`: workers so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked: deque[asyncio.Future[dict[str, Any]]] = deque()
        self.started = 0

    async def ask(self, words: str) -> dict[str, Any]:
        """Answers come in the order of what was asked."""
        assert self._process.stdin is not None
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._process.stdin.write(f"{words}\n".encode())
        return await answer

    async def hear(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = self._asked.popleft()
            if not answer.cancelled():
                answer.set_result(json.loads(line))

    async def start(self, job: WorkerJob) -> RemoteWorkerHandle:
        fields = await self.ask(f"admit {job.stream}")
        worker = await connect(Ticket(**fields | {"secret": bytes.fromhex(fields["secret"])}), job)
        self.started += 1
        return worker

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> Sequence[SlotUse]:
        return ()


@contextlib.asynccontextmanager
async def idle_hosts() -> AsyncIterator[IdleHosts]:
    """Raises OSError where their process can't be started."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    hosts = IdleHosts(process)
    hearing = asyncio.create_task(hosts.hear())
    try:
        yield hosts
    finally:
        hearing.cancel()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _serve() -> None:
    """Answers `admit STREAM` and `figures`, a line each, until standard input ends."""
    host = IdleHost()
    door = Door(host, node="here")
    await door.open("127.0.0.1")
    reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "admit":
            ticket = door.admit(line[1])
            print(json.dumps(asdict(ticket) | {"secret": ticket.secret.hex()}), flush=True)
        else:
            print(json.dumps({"messages": host.messages, "cpu_s": time.process_time()}), flush=True)
    await door.close()


if __name__ == "__main__":
    asyncio.run(_serve())
