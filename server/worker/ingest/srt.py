"""SRT as a socket of MPEG-TS: a process receives for us, so that libsrt takes no worker down."""

import select
import socket
import subprocess
import sys
import threading
import time

import msgspec

from server.wire.srt import SrtAddress, SrtJob

_PROCESS = (sys.executable, "-m", "server.srt.main")

_POLL_S = 0.2
_START_S = 2.0  # of the process, on a busy machine


class SrtReceiver:
    """`socket` gives a message at a time, and nothing once the connection is over: then `reason` says why."""

    def __init__(self, address: SrtAddress, hosts: list[str], *, timeout_s: float) -> None:
        """`hosts`: literal addresses that may be called, or the one to listen at. Raises OSError where no
        process can be started."""
        # Nobody answers: that is for the process to say.
        self._wait_s = timeout_s + (_START_S if address.mode == "caller" else 0)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    _PROCESS,
                    stdin=subprocess.PIPE,
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError:
                self.socket.close()
                raise
        job = SrtJob(address=address, hosts=tuple(hosts), timeout_s=timeout_s / len(hosts))
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()

    def begins(self, stop: threading.Event) -> bool:
        """Waits for the first message, or the end; False where neither comes in time."""
        deadline_s = time.monotonic() + self._wait_s
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while not stop.is_set() and time.monotonic() < deadline_s:
            if poll.poll(_POLL_S * 1000):
                return True
        return False

    def reason(self) -> str:
        """Waits for the end of the process."""
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"its receiver ended with status {self._process.wait()}"

    def end(self) -> None:
        """Ends the process; what waits in the socket can still be read."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Once nobody waits for `reason` any more."""
        self.end()
        self.socket.close()
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None:
                pipe.close()
