"""libsrt by ctypes: connections in live mode, whose messages are some packets of MPEG-TS each.

https://github.com/Haivision/srt/blob/master/docs/API/API-functions.md

ffmpeg's program, which has SRT as well, takes a passphrase in its command line only, which every user of the
machine sees, lets in any streamid where it listens, and knows nothing of when a message came.
"""

import ctypes
import hmac
import socket
import struct
import threading
from collections.abc import Sequence
from ctypes.util import find_library
from functools import cache

from server.wire.srt import SrtAddress

MESSAGE_BYTES = 1316  # of live mode: seven transport packets
_NAMES = ("srt", "srt-openssl", "srt-gnutls")  # as upstream and as Debian names it

_LARGEST_MESSAGE_BYTES = 1456  # that the other side may choose instead

# SRT_SOCKOPT
_CONNECT_TIMEOUT, _PASSPHRASE, _KEY_LENGTH, _LATENCY, _STREAMID = 36, 26, 27, 23, 46
_INVALID = -1
_CRITICAL = 2  # of syslog: what else libsrt has to say would hide our last word
_BACKLOG = 4

# SRT_REJECT_REASON and SRT_REJX, as far as an operator can do something about it
_BADSECRET, _UNSECURE, _TIMEOUT = 10, 11, 16
_FORBIDDEN, _CONFLICT = 1403, 1409
_REASONS = {
    _BADSECRET: "the passphrase is wrong",
    _UNSECURE: "one side has a passphrase and the other has none",
    _TIMEOUT: "nobody answers",
    _FORBIDDEN: "the streamid is refused",
    _CONFLICT: "somebody else is connected there",
}

_hooks: list[object] = []  # libsrt calls them for as long as it listens

# int hook(void *opaque, SRTSOCKET, int version, const struct sockaddr *peer, const char *streamid)
_AcceptHook = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
)


class SrtError(Exception):
    """What libsrt can't do; the message holds neither streamid nor passphrase."""


@cache
def load() -> ctypes.CDLL:
    """Raises SrtError where there is none."""
    for name in filter(None, map(find_library, _NAMES)):
        try:
            srt = ctypes.CDLL(name)
        except OSError:
            continue
        for function in (srt.srt_getlasterror_str, srt.srt_rejectreason_str):
            function.restype = ctypes.c_char_p
        srt.srt_startup()
        srt.srt_setloglevel(_CRITICAL)
        return srt
    raise SrtError("libsrt is not installed: Debian's package libsrt1.5-openssl has it")


def version() -> str:
    """As "1.5.1". Raises SrtError where there is none."""
    number = load().srt_getversion()
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


class Connection:
    """One that is established; its calls block."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._buffer = ctypes.create_string_buffer(_LARGEST_MESSAGE_BYTES)

    def receive(self) -> bytes:
        """One message. Raises SrtError once the other side has gone."""
        size = load().srt_recvmsg(self._handle, self._buffer, _LARGEST_MESSAGE_BYTES)
        if size <= 0:
            raise SrtError("the other side has gone")
        return self._buffer.raw[:size]

    def send(self, data: bytes) -> None:
        """In as many messages as it takes. Raises SrtError once the other side has gone."""
        for at in range(0, len(data), MESSAGE_BYTES):
            message = data[at : at + MESSAGE_BYTES]
            if load().srt_sendmsg(self._handle, message, len(message), -1, 1) < 0:
                raise SrtError("the other side has gone")

    def close(self) -> None:
        load().srt_close(self._handle)


def call(address: SrtAddress, hosts: Sequence[str], *, timeout_s: float) -> Connection:
    """A connection to the first of these addresses of the host that answers. Raises SrtError."""
    reason = "it has no address"
    for host in hosts:
        handle = _socket(address)
        try:
            _set(handle, _CONNECT_TIMEOUT, round(timeout_s * 1000))
            if address.streamid:
                _set(handle, _STREAMID, address.streamid.encode())
            where = _sockaddr(host, address.port)
            if load().srt_connect(handle, where, len(where)) != _INVALID:
                return Connection(handle)
            reason = _reject_reason(handle)
        except BaseException:
            load().srt_close(handle)
            raise
        load().srt_close(handle)
    raise SrtError(reason)


def addresses(address: SrtAddress) -> list[str]:
    """The literal addresses of its host. Raises OSError."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    return [str(entry[4][0]) for entry in found]


def accept(address: SrtAddress, host: str) -> Connection:
    """Waits for one caller with the right streamid and passphrase; later ones are refused for as long as the
    process runs. Raises SrtError where the port can't be had."""
    listener = _socket(address)
    taken = threading.Event()

    def judge(opaque: object, handle: int, version: int, peer: object, streamid: bytes | None) -> int:
        if not hmac.compare_digest(streamid or b"", address.streamid.encode()):
            load().srt_setrejectreason(handle, _FORBIDDEN)
        elif taken.is_set():
            load().srt_setrejectreason(handle, _CONFLICT)
        else:
            return 0
        return -1

    hook = _AcceptHook(judge)
    _hooks.append(hook)
    where = _sockaddr(host, address.port)
    if (
        load().srt_listen_callback(listener, hook, None) == _INVALID
        or load().srt_bind(listener, where, len(where)) == _INVALID
        or load().srt_listen(listener, _BACKLOG) == _INVALID
    ):
        raise SrtError(f"port {address.port} of {host} can't be had: {_last_error()}")
    handle = load().srt_accept(listener, None, None)
    if handle == _INVALID:
        raise SrtError(_last_error())
    taken.set()
    # Who was let in before that, but comes second.
    threading.Thread(target=_refuse, args=(listener,), name="srt-refuse", daemon=True).start()
    return Connection(handle)


def _refuse(listener: int) -> None:
    while (handle := load().srt_accept(listener, None, None)) != _INVALID:
        load().srt_close(handle)


def _socket(address: SrtAddress) -> int:
    handle: int = load().srt_create_socket()
    if handle == _INVALID:
        raise SrtError(_last_error())
    _set(handle, _LATENCY, address.latency_ms)
    if address.passphrase:
        _set(handle, _PASSPHRASE, address.passphrase.encode())
        if address.pbkeylen:
            _set(handle, _KEY_LENGTH, address.pbkeylen)
    return handle


def _set(handle: int, option: int, value: int | bytes) -> None:
    data = struct.pack("@i", value) if isinstance(value, int) else value
    if load().srt_setsockflag(handle, option, data, len(data)) == _INVALID:
        raise SrtError(_last_error())


def _last_error() -> str:
    said: bytes = load().srt_getlasterror_str()
    return said.decode(errors="replace")


def _reject_reason(handle: int) -> str:
    code = load().srt_getrejectreason(handle)
    said: bytes = load().srt_rejectreason_str(code) or b""
    return _REASONS.get(code) or f"refused: {said.decode(errors='replace')}"


def _sockaddr(host: str, port: int) -> bytes:
    """A `struct sockaddr` of a literal address."""
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    inner = socket.inet_pton(family, str(where[0]).partition("%")[0])
    if family == socket.AF_INET6:
        scope = where[3] if len(where) == 4 else 0
        return struct.pack("=H2s4x16sI", family, port.to_bytes(2), inner, scope)
    return struct.pack("=H2s4s8x", family, port.to_bytes(2), inner)
