"""Loopback RTSP server for libav alone: plays what a publisher's packets and description are."""

import re
import secrets
import select
import socket
import threading
import time
from contextlib import suppress

from server.wire.messages import PublishedData, PublisherGone
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.rtp import RtpStream

_READ_BYTES = 1 << 16
_POLL_S = 0.2
_FIRST_WORD_S = 1.0  # libav speaks at once
_LARGEST_REQUEST = 1 << 14
_REQUEST = re.compile(rb"([A-Z_]+) (\S+) RTSP/1\.0\r\n")
_CSEQ = re.compile(rb"\r\nCSeq: *(\d+)", re.IGNORECASE)
_METHODS = b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"


class Handover:
    """Serves whoever knows its URL, which is asked for once, through `stream`. Ends with the publication;
    `end` says why."""

    def __init__(self, inbox: PublisherInbox, description: bytes, *, timeout_s: float) -> None:
        self._inbox = inbox
        self._description = description
        self._timeout_s = timeout_s
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(_POLL_S)
        # Anybody on this machine may find the port.
        self._secret = secrets.token_urlsafe(16).encode()
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/{self._secret.decode()}"
        self.stream = RtpStream()
        self.end = ""
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        with self._listener:
            while not self._closing.is_set() and not self.end:
                try:
                    player, _ = self._listener.accept()
                except TimeoutError:
                    continue
                player.settimeout(_POLL_S)
                player.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with player, suppress(OSError):
                    if self._answer_until_play(player):
                        self._play(player)

    def _answer_until_play(self, player: socket.socket) -> bool:
        """False for a stranger, or one that has gone."""
        requests = _Requests()
        deadline_s = time.monotonic() + _FIRST_WORD_S
        while not self._closing.is_set() and time.monotonic() < deadline_s:
            try:
                data = player.recv(_READ_BYTES)
            except TimeoutError:
                continue
            if not data:
                return False
            for request in requests.feed(data):
                found = _REQUEST.match(request)
                if found is None or self._secret not in found[2]:
                    return False
                deadline_s = time.monotonic() + self._timeout_s
                player.sendall(self._answer(found[1], found[2], request))
                if found[1] == b"PLAY":
                    return True
        return False

    def _play(self, player: socket.socket) -> None:
        requests, heard_s = _Requests(), time.monotonic()
        poll = select.poll()
        poll.register(player, select.POLLIN)
        while not self._closing.is_set():
            match self._inbox.take(_POLL_S, self._closing):
                case PublishedData(data=data, arrival_ns=arrival_ns):
                    heard_s = time.monotonic()
                    self._send(player, self.stream.feed(data, arrival_ns))
                case PublisherGone(reason=reason):
                    self.end = reason
                    return
                case _ if time.monotonic() - heard_s > self._timeout_s:
                    self.end = f"nothing arrived within {self._timeout_s:g} s"
                    return
            if poll.poll(0):  # libav's reports, and that it is there
                data = player.recv(_READ_BYTES)
                if not data:
                    return
                for request in requests.feed(data):
                    found = _REQUEST.match(request)
                    if found is not None:
                        self._send(player, self._answer(found[1], found[2], request))

    def _send(self, player: socket.socket, data: bytes) -> None:
        """While libav is slow it waits, and the inbox drops."""
        left = memoryview(data)
        while left and not self._closing.is_set():
            with suppress(TimeoutError):
                left = left[player.send(left) :]

    def _answer(self, method: bytes, url: bytes, request: bytes) -> bytes:
        body = b""
        headers = b"Session: 1\r\n"
        match method:
            case b"OPTIONS":
                headers = _METHODS
            case b"DESCRIBE":
                body = self._description
                headers = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(body)
            case b"SETUP":
                track = int(url.rpartition(b"track=")[2])
                channels = b"%d-%d" % (2 * track, 2 * track + 1)
                headers += b"Transport: RTP/AVP/TCP;unicast;interleaved=%s\r\n" % channels
        cseq = _CSEQ.search(request)
        return b"RTSP/1.0 200 OK\r\nCSeq: %s\r\n%s\r\n%s" % (cseq[1] if cseq else b"0", headers, body)


class _Requests:
    """libav's requests, without bodies; its packets between them are passed over."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises OSError where it is no request."""
        self._buffer += data
        whole: list[bytes] = []
        while self._buffer:
            if self._buffer.startswith(b"$"):
                end = 4 + int.from_bytes(self._buffer[2:4])
                if len(self._buffer) < max(end, 4):
                    return whole
            else:
                end = self._buffer.find(b"\r\n\r\n") + 4
                if end < 4:
                    if len(self._buffer) > _LARGEST_REQUEST:
                        raise OSError("no request of RTSP")
                    return whole
                whole.append(self._buffer[:end])
            self._buffer = self._buffer[end:]
        return whole
