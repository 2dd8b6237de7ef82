"""An SRT address, `srt://host:port?streamid=…&passphrase=…`, and the job of who receives by it."""

from typing import Annotated, Literal, get_args
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

SrtMode = Literal["caller", "listener"]
_KEYS = ("mode", "streamid", "passphrase", "pbkeylen", "latency")
_PASSPHRASE_BYTES = range(10, 80)  # libsrt's own rule
_STREAMID_BYTES = 512
_KEY_BYTES = ("0", "16", "24", "32")
_MOST_LATENCY_MS = 8000


class SrtAddress(Struct, frozen=True, kw_only=True):
    """Where a caller calls or a listener waits. `repr` hides what is secret."""

    mode: SrtMode
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    streamid: str = ""
    passphrase: str = ""
    pbkeylen: int = 0  # bytes of the key that encrypts; 0: as the other side says, or 16
    latency_ms: int = 120

    def __repr__(self) -> str:
        return f"SrtAddress(mode={self.mode!r}, host={self.host!r}, port={self.port})"


class SrtJob(Struct, frozen=True, kw_only=True):
    """What is received from where: `hosts` are literal addresses, of a caller's host or where to listen."""

    address: SrtAddress
    hosts: tuple[str, ...]
    timeout_s: float  # of each call


def srt_address(url: str) -> SrtAddress:
    """Raises ValueError that names the rule, and shows neither streamid nor passphrase."""
    parts = urlsplit(url, allow_fragments=False)  # streamids begin with "#!::" by SRT's access control
    if not parts.hostname:
        raise ValueError("must name a host")
    if not parts.port:
        raise ValueError("must name a port")
    if parts.path.strip("/") or parts.username is not None:
        raise ValueError("an SRT address is a host, a port and options")
    given = dict[str, str]()
    for pair in filter(None, parts.query.split("&")):
        key, _, value = pair.partition("=")
        if key not in _KEYS or key in given:
            raise ValueError(f"SRT option {key!r} must be one of {', '.join(_KEYS)}, given once")
        given[key] = unquote(value)
    return _checked(given, parts.hostname, parts.port)


def _checked(given: dict[str, str], host: str, port: int) -> SrtAddress:
    mode: SrtMode
    match given.get("mode", "caller"):
        case "caller" | "listener" as known:
            mode = known
        case other:
            raise ValueError(f"mode={other!r}: must be one of {', '.join(get_args(SrtMode))}")
    passphrase, streamid = given.get("passphrase", ""), given.get("streamid", "")
    if passphrase and len(passphrase.encode()) not in _PASSPHRASE_BYTES:
        raise ValueError("passphrase: must have 10 to 79 bytes")
    if len(streamid.encode()) > _STREAMID_BYTES:
        raise ValueError(f"streamid: must have at most {_STREAMID_BYTES} bytes")
    key_bytes, latency = given.get("pbkeylen", "0"), given.get("latency", "120")
    if key_bytes not in _KEY_BYTES:
        raise ValueError(f"pbkeylen={key_bytes!r}: must be one of {', '.join(_KEY_BYTES)}")
    if not (latency.isascii() and latency.isdecimal() and int(latency) <= _MOST_LATENCY_MS):
        raise ValueError(f"latency={latency!r}: must be milliseconds, at most {_MOST_LATENCY_MS}")
    return SrtAddress(
        mode=mode,
        host=host,
        port=port,
        streamid=streamid,
        passphrase=passphrase,
        pbkeylen=int(key_bytes),
        latency_ms=int(latency),
    )
