"""Loopback port between libav and a source: what libav sends there goes to a checked address."""

import re
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

from server.wire.clock import now_ns
from server.worker.ingest.dial import Refused
from server.worker.ingest.rtp import RtpStream

_READ_BYTES = 1 << 16
_POLL_S = 0.2

# What libav may read as the status of an answer that is no redirect.
_NO_REDIRECT = re.compile(rb"RTSP/1\.\d [12456]\d\d[ \r\n]")
_LONE_CR = re.compile(rb"\r[^\n]")  # libav reads on as if it weren't there
_STARTS = (b"RTSP", b"RTS", b"RT", b"R", b"\r")
_STATUS_BYTES = len("RTSP/1.0 200 ")


class Relay:
    """Each connection to `port` becomes one that `dial` makes, until closed. With `rtsp` an answer that sends
    libav elsewhere ends it, and what comes goes through `stream`. `failure` says what kept the last one from
    being made."""

    def __init__(self, dial: Callable[[], socket.socket], *, rtsp: bool) -> None:
        self._dial = dial
        self._rtsp = rtsp
        self._closing = threading.Event()
        self.stream = RtpStream()
        self.failure: Exception | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                ours, _ = self._listener.accept()
            except TimeoutError:
                continue
            with ours:
                try:
                    theirs = self._dial()
                except (Refused, OSError) as exc:
                    self.failure = exc
                    continue
                with theirs, suppress(OSError):
                    self._pass_on(ours, theirs)

    def _pass_on(self, ours: socket.socket, theirs: socket.socket) -> None:
        guard = RedirectGuard() if self._rtsp else None
        poll = select.poll()
        for each in (ours, theirs):
            poll.register(each, select.POLLIN)
        while not self._closing.is_set():
            pending = isinstance(theirs, ssl.SSLSocket) and theirs.pending()
            readable = [theirs.fileno()] if pending else [fd for fd, _ in poll.poll(_POLL_S * 1000)]
            if ours.fileno() in readable:
                data = ours.recv(_READ_BYTES)
                if not data:
                    return
                if guard is not None:
                    guard.from_client(data)
                theirs.sendall(data)
            if theirs.fileno() in readable:
                data = theirs.recv(_READ_BYTES)
                if not data:
                    return
                try:
                    if guard is not None:
                        data = self.stream.feed(guard.from_server(data), now_ns())
                    ours.sendall(data)
                except Refused as exc:
                    self.failure = exc
                    return


class RedirectGuard:
    """Watches the answers until libav plays: up to then it would follow a redirect to any address."""

    def __init__(self) -> None:
        self._plays = False
        self._held = b""

    def from_client(self, data: bytes) -> None:
        self._plays = self._plays or data.startswith(b"PLAY ")

    def from_server(self, data: bytes) -> bytes:
        """What may be passed on of all that came. Raises Refused for a redirect."""
        data, self._held = self._held + data, b""
        if self._plays:
            return data
        if _LONE_CR.search(data):
            raise Refused("the server does not speak RTSP")
        at = data.find(b"RTSP/")
        while at >= 0 and len(data) - at >= _STATUS_BYTES:
            if not _NO_REDIRECT.match(data, at):
                raise Refused("the server sends on to another address, which only HTTP may")
            at = data.find(b"RTSP/", at + 1)
        if at < 0:
            at = next((len(data) - len(start) for start in _STARTS if data.endswith(start)), len(data))
        data, self._held = data[:at], data[at:]
        return data
