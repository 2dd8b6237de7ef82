"""Hosts that a gateway reaches over TLS: in this process with scripted workers, or as processes."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace as replaced
from pathlib import Path

from msgspec.structs import replace

from server.gateway.placement import remote
from server.gateway.placement.local import LocalPlacement
from server.gateway.placement.remote import HostUnreachable, RemoteWorkerHandle, connect
from server.node import session
from server.node.door import Door
from server.node.files import FileCache
from server.wire.clock import now_ns
from server.wire.hello import Ticket
from server.wire.messages import AudioPacket, Message, VideoPacket, WorkerJob
from tests.conftest import ROOT
from tests.server.gateway.scripted_worker import ScriptedPlacement, ScriptedWorker


class AheadClock:
    """Of a machine that is up for longer: its host tells this time, and its workers stamp with it."""

    def __init__(self, monkeypatch, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        monkeypatch.setattr(session, "now_ns", lambda: now_ns() + round(self.ahead_s * 1e9))

    def stamp(self, message: Message) -> Message:
        ns = round(self.ahead_s * 1e9)
        match message:
            case VideoPacket():
                return replace(
                    message,
                    pts=message.pts + round(self.ahead_s * 90_000),
                    arrival_ns=message.arrival_ns + ns,
                    sent_ns=message.sent_ns + ns,
                )
            case AudioPacket():
                return replace(message, pts=message.pts + round(self.ahead_s * 48_000))
        return message


class AheadPlacement(ScriptedPlacement):
    """Scripted workers on a machine of that clock."""

    def __init__(self, clock: AheadClock | None = None, **fields) -> None:
        super().__init__(**fields)
        self.clock = clock

    async def start(self, job: WorkerJob) -> ScriptedWorker:
        worker = await super().start(job)
        if self.clock is not None:
            say, stamp = worker.say, self.clock.stamp
            worker.say = lambda message: say(stamp(message))
        return worker


class Hosts:
    """A `Placement` of hosts, one after the other as they fail."""

    def __init__(self) -> None:
        self.hosts: list = []  # what admits
        self.handles: list[RemoteWorkerHandle] = []

    async def start(self, job: WorkerJob) -> RemoteWorkerHandle:
        if not self.hosts:
            raise OSError("no host is left")
        try:
            handle = await connect(await self.hosts[0].admit(job.stream), job)
        except HostUnreachable:
            self.hosts.append(self.hosts.pop(0))
            raise
        self.handles.append(handle)
        handle.on_left = lambda: self.hosts.pop(0) if handle.lost else None
        return handle

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> tuple[()]:
        return ()


class HostHere:
    """In this process."""

    def __init__(self, door: Door) -> None:
        self.door = door

    async def admit(self, stream: str) -> Ticket:
        return self.door.admit(stream)


@contextlib.asynccontextmanager
async def host_here(
    placement: ScriptedPlacement, folder: Path, node: str = "here"
) -> AsyncIterator[HostHere]:
    door = Door(placement, node=node, files=FileCache(folder))
    await door.open("127.0.0.1")
    try:
        yield HostHere(door)
    finally:
        await door.close()


class HostProcess:
    """A real host, with real workers."""

    def __init__(self, process: asyncio.subprocess.Process, node: str) -> None:
        self.process = process
        self.node = node

    async def admit(self, stream: str) -> Ticket:
        self.process.stdin.write(f"{stream}\n".encode())
        fields = json.loads(await self.process.stdout.readline())
        return Ticket(**fields | {"secret": bytes.fromhex(fields["secret"])})

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@contextlib.asynccontextmanager
async def host_process(folder: Path, node: str) -> AsyncIterator[HostProcess]:
    command = [sys.executable, "-m", "tests.server.node.hosts", node, str(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield HostProcess(process, node)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process.stdin.close()
        process._transport.close()


async def _main(node: str, folder: str) -> None:
    """A ticket for each stream that is asked for by name on standard input."""
    door = Door(LocalPlacement(), node=node, files=FileCache(Path(folder)))
    await door.open("127.0.0.1")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        ticket = door.admit(line.decode().strip())
        fields = {name: getattr(ticket, name) for name in Ticket.__slots__}
        print(json.dumps(fields | {"secret": ticket.secret.hex()}), flush=True)


@contextlib.contextmanager
def another_version(monkeypatch) -> Iterator[None]:
    """Of the gateway."""
    with monkeypatch.context() as patch:
        patch.setattr(remote, "wire_version", lambda: "0.0.9+beef")
        yield


def forged(ticket: Ticket, **fields) -> Ticket:
    return replaced(ticket, **fields)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
