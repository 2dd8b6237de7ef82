"""MPEG-TS by a socket of our own, over UDP or from SRT's receiver: so it is known when each byte arrives."""

import ipaddress
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from server.wire.clock import now_ns
from server.worker.ingest.transport import TransportStream

_POLL_S = 0.2
_DATAGRAM_BYTES = 1 << 16
_SOCKET_BYTES = 4 << 20  # the kernel gives as much of it as it may
_MOST_BYTES = 8 << 20
# Options of libav's that mean nothing to our socket. With others it opens its own.
_NO_MATTER = {"buffer_size", "fifo_size", "overrun_nonfatal", "pkt_size", "reuse", "reuse_port", "timeout"}


def can_listen(url: str) -> bool:
    """Whether our socket does what the URL asks for."""
    return all(name in _NO_MATTER for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))


class Datagrams:
    """What a socket receives as the file that libav reads, through `stream`. It ends after the timeout, and
    once `stop` is set. A thread of its own takes what comes; when libav is slow the oldest is dropped."""

    def __init__(
        self,
        receiver: socket.socket,
        stream: TransportStream,
        *,
        timeout_s: float,
        stop: threading.Event,
        why_over: Callable[[], str] | None = None,
    ) -> None:
        """The socket is closed with it. `why_over`: an empty message means that nothing follows, and this
        says why."""
        self._stream = stream
        self._timeout_s = timeout_s
        self._stop = stop
        self._socket = receiver
        self._socket.settimeout(_POLL_S)
        self._why_over = why_over
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._ready = b""
        self._open_by_s: float | None = time.monotonic() + timeout_s
        self._over = ""  # why nothing follows what waits
        self.end = ""  # why it ended
        self._thread = threading.Thread(target=self._run, name="datagrams", daemon=True)
        self._thread.start()

    def begun(self) -> None:
        """What it is has been found; until then it has the timeout for that, whatever arrives."""
        self._open_by_s = None

    def read(self, size: int) -> bytes:
        while not self._ready:
            datagram = self._take()
            if datagram is None:
                return b""
            self._ready = self._stream.feed(*datagram)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def close(self) -> None:
        self._closing = True
        self._thread.join()

    def _take(self) -> tuple[bytes, int] | None:
        now_s = time.monotonic()
        deadline_s = now_s + self._timeout_s
        if self._open_by_s is not None and now_s > self._open_by_s:
            self.end = self.end or f"no video was found within {self._timeout_s:g} s"
        with self._changed:
            while not self._waiting or self.end:
                left_s = deadline_s - time.monotonic()
                if self._over:
                    self.end = self.end or self._over
                elif left_s <= 0:
                    self.end = self.end or f"nothing arrived within {self._timeout_s:g} s"
                if self.end or self._stop.is_set():
                    return None
                self._changed.wait(min(left_s, _POLL_S))
            datagram = self._waiting.popleft()
            self._bytes -= len(datagram[0])
            return datagram

    def _run(self) -> None:
        with self._socket:
            while not self._closing:
                try:
                    data = self._socket.recv(_DATAGRAM_BYTES)
                except TimeoutError:
                    continue
                except OSError:  # of a sender that isn't there; the port is
                    continue
                if not data and self._why_over is not None:
                    self._over = self._why_over()
                    with self._changed:
                        self._changed.notify()
                    return
                arrival_ns = now_ns()
                with self._changed:
                    self._waiting.append((data, arrival_ns))
                    self._bytes += len(data)
                    while self._bytes > _MOST_BYTES:
                        self._bytes -= len(self._waiting.popleft()[0])
                    self._changed.notify()


def listen(url: str) -> socket.socket:
    """Bound to the port, on every address of this machine as libav does it; a group's is joined. Raises
    OSError where the port can't be had, ValueError where there is none."""
    parts = urlsplit(url)
    port = parts.port
    if not port:
        raise ValueError(f"{url}: must name a port")
    host = (parts.hostname or "").removeprefix("@") or "0.0.0.0"
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    address = ipaddress.ip_address(str(where[0]).partition("%")[0])
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        if address.is_multicast:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if address.version == 6 else "0.0.0.0", port))
        if address.is_multicast and address.version == 6:
            group = struct.pack("@16sI", address.packed, 0)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        elif address.is_multicast:
            group = struct.pack("@4sI", address.packed, socket.INADDR_ANY)
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    except BaseException:
        listener.close()
        raise
    return listener
