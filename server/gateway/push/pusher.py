"""Keeps one push going: a process that is fed with the stream, and another one when that has ended."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable

from server.gateway.mp4.fragments import Fragment
from server.wire.logs import get_logger

log = get_logger(__name__)

_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 30.0
_GOOD_S = 30.0  # so long a push had gone well
_ENDS_S = 1.0  # what the process is given to send the end
_MOST_BUFFERED = 8 << 20  # bytes that the process hasn't taken: some seconds
# libav waits for ever for a server that lets it connect and then says nothing, or reads no more.
_CONNECTS_S, _TAKES_S = 30.0, 10.0
_LAST_WORDS_BYTES = 4096
_PROCESS = (sys.executable, "-m", "server.push.main")


class Pusher:
    """Of one stream to one address. `fragment` belongs to the event loop and never waits."""

    def __init__(
        self,
        stream: str,
        address: str,
        target: str,
        *,
        on_change: Callable[["Pusher"], None],
        on_need_keyframe: Callable[[], None],
    ) -> None:
        """`target` is what logs, metrics and the API call the address."""
        self.target = target
        self.connected = False
        self.reason = "starting"  # why it isn't
        self.restarts = 0
        self._stream = stream
        self._address = address
        self._on_change = on_change
        self._on_need_keyframe = on_need_keyframe
        self._process: Process | None = None
        self._init: bytes | None = None  # what the process is fed with
        self._feed = _Feed()
        self._given_up = ""  # why
        self._task = asyncio.create_task(self._run())

    def fragment(self, fragment: Fragment) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return
        if self._init is None:
            if not fragment.independent:
                return
            self._init, self._feed = fragment.init, _Feed()
            process.stdin.write(fragment.init)
        if fragment.init is not self._init:
            self._end(process)  # another size or codec is another connection
            return
        waiting = process.stdin.transport.get_write_buffer_size()
        if reason := self._feed.trouble(waiting, connected=self.connected):
            self._given_up = reason
            self._kill(process)
            return
        process.stdin.write(fragment.data)
        self._feed.written += len(fragment.data)

    @property
    def ended(self) -> bool:
        return self._task.done()

    def end(self) -> None:
        """Nothing follows; the process sends what it has and goes."""
        self._task.cancel()

    async def close(self) -> None:
        self.end()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            started_s = time.monotonic()
            reason = await self._once()
            if time.monotonic() - started_s > _GOOD_S:
                retry_s = _FIRST_RETRY_S
            self.restarts += 1
            self._now(False, reason)
            await asyncio.sleep(retry_s * random.uniform(0.75, 1.25))
            retry_s = min(retry_s * 2, _LAST_RETRY_S)

    async def _once(self) -> str:
        """Why it has ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *_PROCESS,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as exc:
            return f"no process could be started: {exc}"
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._init, self._given_up = None, ""
        process.stdin.write(f"{self._address}\n".encode())
        self._process = process
        self._on_need_keyframe()
        words = asyncio.create_task(_last_words(process.stderr))
        try:
            while line := await process.stdout.readline():
                match line.strip():
                    case b"connected":
                        self._now(True, "")
                    case b"keyframe":
                        self._on_need_keyframe()
            status = await process.wait()
            said = await words
        finally:
            self._process = None
            words.cancel()
            self._end(process)
        if self._given_up:
            return self._given_up
        if self._init is not None and status == 0:
            return "the stream has another format"
        return said or f"the process ended with status {status}"

    def _now(self, connected: bool, reason: str) -> None:
        if (connected, reason) == (self.connected, self.reason):
            return
        self.connected, self.reason = connected, reason
        if connected:
            log.info("push connected", stream=self._stream, target=self.target)
        else:
            log.warning("push down", stream=self._stream, target=self.target, reason=reason)
        self._on_change(self)

    def _end(self, process: Process) -> None:
        """Lets it send the end, for a moment."""
        if process.stdin is not None:
            process.stdin.close()
        asyncio.get_running_loop().call_later(_ENDS_S, self._kill, process)

    def _kill(self, process: Process) -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class _Feed:
    """What a process is fed with, and whether it takes that."""

    def __init__(self) -> None:
        self.written = 0
        self._began_s = self._took_s = time.monotonic()
        self._taken = 0

    def trouble(self, waiting: int, *, connected: bool) -> str:
        """Why it is to be given up; "": not yet. `waiting`: bytes that it hasn't taken."""
        now_s, taken = time.monotonic(), self.written - waiting
        if not connected or taken != self._taken or not waiting:
            self._taken, self._took_s = taken, now_s
        if not connected and now_s - self._began_s > _CONNECTS_S:
            return f"no connection within {_CONNECTS_S:g} s"
        if now_s - self._took_s > _TAKES_S:
            return f"it has taken nothing for {_TAKES_S:g} s"
        if waiting > _MOST_BUFFERED:
            return "it takes less than the stream has"
        return ""


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The last line that is said there; there may be any number before it, in days."""
    said = b""
    while data := await stream.read(_LAST_WORDS_BYTES):
        said = (said + data)[-_LAST_WORDS_BYTES:]
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
