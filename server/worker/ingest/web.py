"""HTTP and HLS by our own client: what libav reads, playlists' inner URLs and redirects included, is dialled
where the policy allows."""

import http.client
import os
import re
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from server.worker.ingest.ahead import Ahead
from server.worker.ingest.dial import Dialer
from server.worker.ingest.readable import Decrypted, Nothing, Readable, decrypted_url
from server.worker.ingest.transport import Arrivals, Segment

_FAILURES = (OSError, http.client.HTTPException, ValueError)

_PLAYLIST = b"#EXTM3U"
_LONGEST_PLAYLIST = 1 << 20
_SKIP_BYTES = 1 << 16
_URI = re.compile(r'URI="([^"]*)"')


class Web:
    """`open` is libav's `io_open`. What can't be had is `Nothing`; `failure` says why. Only what the policy
    forbids is raised: Refused. What is no file is read ahead."""

    def __init__(self, url: str, dialer: Dialer, *, timeout_s: float) -> None:
        self._dialer = dialer
        self._timeout_s = timeout_s
        self._open_by_s: float | None = None
        self._passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        self.url = self._without_user(url)
        self.failure = ""
        self._first: Readable | None = None  # that libav has opened
        self._arrivals = Arrivals()
        self._arrival_ns: int | None = None  # of what libav has read last
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            _Http(dialer),
            _Https(dialer),
            _Redirects(self._check_scheme),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPBasicAuthHandler(self._passwords),
            urllib.request.HTTPDigestAuthHandler(self._passwords),
            urllib.request.HTTPCookieProcessor(),
        ):
            self._opener.add_handler(handler)
        self._opener.addheaders = [("User-Agent", "livesr"), ("Accept", "*/*")]

    def begin(self) -> None:
        """From here on the source has the timeout to show what it is."""
        self.failure = ""
        self._open_by_s = time.monotonic() + self._timeout_s

    def begun(self) -> None:
        self._open_by_s = None

    def open(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        address, encrypted = decrypted_url(url)
        address = self._without_user(address)
        start, end = int(options.get("offset", 0)), int(options.get("end_offset", 0))
        try:
            self._check_scheme(address)
            body = self._body(address, start, end)
        except _FAILURES as exc:
            self.failed(exc)
            return Nothing()
        readable = Decrypted(body, options) if encrypted else body
        if self._first is None:
            self._first = readable
        return readable

    def close(self) -> None:
        """libav closes what it opens, but not the first: PyAV has it take that one for its caller's."""
        if self._first is not None:
            self._first.close()
            self._first = None

    def arrival_ns(self, pts: int | None) -> int | None:
        """When a packet of the picture arrived; None where that isn't known. Of formats other than MPEG-TS,
        and of encrypted segments, the last part that libav has read counts: maybe the next segment's."""
        found = None if pts is None else self._arrivals.find(pts)
        return self._arrival_ns if found is None else found

    def _ahead(self, body: "_Body") -> Ahead:
        segment = Segment(self._arrivals)

        def on_read(data: bytes, arrival_ns: int) -> None:
            self._arrival_ns = arrival_ns
            segment.feed(data, arrival_ns)

        return Ahead(body, on_read=on_read)

    def _body(self, url: str, start: int, end: int) -> Readable:
        response = self.get(url, start, end)
        if end:
            return self._ahead(_Body(self, response, end - start))
        if response.geturl() != url:
            playlist = _Body(self, response, None)
            if playlist.resolve_uris(response.geturl()):
                return playlist
            response.close()
            response = self.get(url, start)
        size = _whole_size(response, start)
        if size is None or url != self.url:
            return self._ahead(_Body(self, response, None))
        return _Seekable(self, response, start, size)  # it may be a file, whose index lies at its end

    def get(self, url: str, start: int, end: int = 0) -> http.client.HTTPResponse:
        """The answer from byte `start` on, up to `end` unless that is 0. Raises one of _FAILURES."""
        request = urllib.request.Request(url)  # noqa: S310 - our opener knows HTTP and HTTPS only
        request.add_header("Range", f"bytes={start}-{end - 1 if end else ''}")
        response: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout_s)
        left = start if response.status != HTTPStatus.PARTIAL_CONTENT else 0
        while left and (data := response.read1(min(left, _SKIP_BYTES))):
            left -= len(data)
        return response

    def check_time(self) -> None:
        """Raises TimeoutError where the source has not shown in time what it is."""
        if self._open_by_s is not None and time.monotonic() > self._open_by_s:
            raise TimeoutError

    def failed(self, exc: Exception) -> bytes:
        """Keeps the reason; returns what a failed read returns."""
        match exc:
            case HTTPError(code=code):
                exc.close()
                self.failure = f"the server answered {code} {http.client.responses.get(code, '')}".rstrip()
            case TimeoutError() | URLError(reason=TimeoutError()):
                self.failure = f"nothing arrived within {self._timeout_s:g} s"
            case URLError(reason=OSError() as reason):
                self.failure = reason.strerror or str(reason)
            case _:
                self.failure = str(exc) or type(exc).__name__
        return b""

    def _check_scheme(self, url: str) -> None:
        name = urlsplit(url).scheme
        if name not in ("http", "https"):
            raise URLError(f"it leads to {name!r}, which is not of the web")
        self._dialer.check_scheme(name)

    def _without_user(self, url: str) -> str:
        """The URL without its user and password, which are kept for when the server asks for them."""
        parts = urlsplit(url)
        user, at, where = parts.netloc.rpartition("@")
        if not at:
            return url
        name, _, password = user.partition(":")
        root = urlunsplit((parts.scheme, where, "/", "", ""))
        self._passwords.add_password(None, root, unquote(name), unquote(password))
        return urlunsplit(parts._replace(netloc=where))


class _Body:
    """Body of an answer, `size` bytes of it at most."""

    def __init__(self, web: Web, response: http.client.HTTPResponse, size: int | None) -> None:
        self._web = web
        self._response = response
        self._left = size
        self._ready = b""  # read already

    def read(self, size: int, /) -> bytes:
        try:
            self._web.check_time()
            size = size if self._left is None else min(size, self._left)
            data = self._ready[:size] or self._response.read1(size)
        except _FAILURES as exc:
            return self._web.failed(exc)
        self._ready = self._ready[len(data) :]
        if self._left is not None:
            self._left -= len(data)
        return data

    def resolve_uris(self, base: str) -> bool:
        """Whether it is a playlist: a redirected one is relative to where it lies, unknown to libav."""
        self._ready = self._response.read(len(_PLAYLIST))
        if self._ready != _PLAYLIST:
            return False
        lines = (self._ready + self._response.read(_LONGEST_PLAYLIST)).decode(errors="replace").splitlines()
        for index, line in enumerate(lines):
            if line.startswith("#"):
                lines[index] = _URI.sub(lambda found: f'URI="{urljoin(base, found[1])}"', line)
            elif line.strip():
                lines[index] = urljoin(base, line.strip())
        self._ready = "\n".join([*lines, ""]).encode()
        return True

    def abort(self) -> None:
        """Ends a read that waits, in another thread."""
        with (
            suppress(OSError, ValueError, AttributeError),  # it has been read to its end, and is closed
            socket.socket(fileno=os.dup(self._response.fileno())) as connection,
        ):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()


class _Seekable(_Body):
    """Body of known size: after a seek the next read asks the server again, from there on."""

    def __init__(self, web: Web, response: http.client.HTTPResponse, start: int, size: int) -> None:
        super().__init__(web, response, None)
        self._url = response.geturl()
        self._at = self._answered = start
        self._size = size

    def read(self, size: int, /) -> bytes:
        if self._at != self._answered:
            self._response.close()
            try:
                self._response = self._web.get(self._url, self._at)
            except _FAILURES as exc:
                return self._web.failed(exc)
        data = super().read(size)
        self._at = self._answered = self._at + len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _whole_size(response: http.client.HTTPResponse, start: int) -> int | None:
    """Size of what the answer is a part of; None where the server does not say."""
    total = (response.headers.get("Content-Range") or "").rpartition("/")[2]
    if total.isdecimal():
        return int(total)
    partial = response.status == HTTPStatus.PARTIAL_CONTENT
    return None if response.length is None or partial else start + response.length


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, dialer: Dialer, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dialer = dialer

    def connect(self) -> None:
        self.sock = self._dialer.dial(self.host, self.port)


class _TlsConnection(_Connection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        self.sock = self._dialer.dial(self.host, self.port, tls=True)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, dialer: Dialer) -> None:
        super().__init__()
        self._dialer = dialer

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req, dialer=self._dialer)  # type: ignore[arg-type]


class _Https(urllib.request.AbstractHTTPHandler):
    def __init__(self, dialer: Dialer) -> None:
        super().__init__()
        self._dialer = dialer

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TlsConnection, req, dialer=self._dialer)  # type: ignore[arg-type]

    https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            self._check(newurl)
        except BaseException:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)
