"""Sources as URLs: which schemes there are, and what logs and the API may show of one."""

import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import unquote_to_bytes, urlsplit

PublishProtocol = Literal["rtmp", "rtsp"]
_PUBLISH_PORTS: dict[PublishProtocol, int] = {"rtmp": 1935, "rtsp": 554}
_LISTEN = "listen=1"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):")
_URL = re.compile(r"(['\"]?)([\w+.\-]{1,16}://)(\S*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """`reader` names what opens it (`server.worker.ingest.open`)."""

    reader: Literal["file", "demo", "synthetic", "network", "whip", "stdin", "device"]


# The one table: the settings refuse what is not in it, and a new scheme of libav's is a line here.
SCHEMES = {
    "rtsp": Scheme(reader="network"),
    "rtsps": Scheme(reader="network"),
    "rtmp": Scheme(reader="network"),
    "rtmps": Scheme(reader="network"),
    "http": Scheme(reader="network"),
    "https": Scheme(reader="network"),
    "udp": Scheme(reader="network"),
    "srt": Scheme(reader="network"),
    "whip": Scheme(reader="whip"),
    "stdin": Scheme(reader="stdin"),
    "synthetic": Scheme(reader="synthetic"),
    "demo": Scheme(reader="demo"),
    "v4l2": Scheme(reader="device"),
    "file": Scheme(reader="file"),
}


def scheme(url: str) -> str:
    """The scheme in lower case; empty for a plain path."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else ""


def find_scheme(url: str) -> Scheme:
    """Raises ValueError for a scheme that is not in the table. A plain path is a file's."""
    name = scheme(url)
    if name and name not in SCHEMES:
        raise ValueError(f"scheme {name!r} must be one of {', '.join(SCHEMES)}, or the source a file's path")
    return SCHEMES[name or "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishAddress:
    """Where a publisher is waited for. The path holds the key."""

    protocol: PublishProtocol
    host: str
    port: int
    path: bytes


def publish_address(url: str) -> PublishAddress | None:
    """Where a URL with `?listen=1` has publishers waited for; None where it is pulled from.

    Raises ValueError where the scheme has no publishers, or the port is none.
    """
    if find_scheme(url).reader != "network":
        return None
    name, parts = scheme(url), urlsplit(url, allow_fragments=False)  # a "#" belongs to the key
    if _LISTEN not in parts.query.split("&"):
        return None
    protocol: PublishProtocol
    match name:
        case "rtmp" | "rtsp":
            protocol = name
        case _:
            raise ValueError(f"listen=1 needs {' or '.join(get_args(PublishProtocol))}, not {name!r}")
    given = find_port(url)
    port = _PUBLISH_PORTS[protocol] if given is None else given
    if not port:
        raise ValueError("listen=1 needs a port above 0")
    if not parts.hostname:
        raise ValueError("must name a host")
    path = publish_path(f"{parts.path}?{parts.query}")
    return PublishAddress(protocol=protocol, host=parts.hostname, port=port, path=path)


def find_port(url: str) -> int | None:
    """Raises ValueError, which doesn't say what is there instead: it may be of a password."""
    try:
        return urlsplit(url).port
    except ValueError:
        raise ValueError("its port must be a number; /, ? and # of a password are %2F, %3F and %23") from None


def publish_path(text: str) -> bytes:
    """Path and query as they are compared: no slashes around, no escapes in the path, and no `listen=1`,
    which comes along where a source's URL is copied."""
    path, _, query = text.partition("?")
    rest = "&".join(pair for pair in query.split("&") if pair and pair != _LISTEN)
    return unquote_to_bytes(path.strip("/")) + (f"?{rest}".encode() if rest else b"")


def without_user(address: str) -> str:
    """The address without user, password or token."""
    parts = urlsplit(address, allow_fragments=False)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def mask_target(address: str) -> str:
    """Where a stream is pushed to, for logs and the API: whose path is its key."""
    parts = urlsplit(without_user(address), allow_fragments=False)
    host = parts.netloc if _is_place(parts.netloc) else "***"
    return f"{parts.scheme}://{host}{'/***' if parts.path.strip('/') or parts.query else ''}"


def mask_url(url: str) -> str:
    """The URL, or path, for logs and the API: user, password and query are hidden, and the key of a listening
    source, which is the last part of its path. Whatever it holds, spaces and quotes too, is its own."""
    prefix, network, rest = url.partition("://")
    if not network or not _SCHEME.match(f"{prefix}:"):
        return mask_credentials(url)
    return f"{prefix}://{_masked(rest)}"


def mask_credentials(text: str) -> str:
    """The text for logs and the API, with every URL in it masked as by `mask_url`. One ends at a space, or at
    the quote that it begins with: passwords may hold others."""
    return _URL.sub(_masked_in_text, text)


def _masked_in_text(found: re.Match[str]) -> str:
    quote, prefix, rest = found.groups()
    end = re.search(rf"{quote}[\])}},.:;]*$", rest) if quote else None
    at = end.start() if end else len(rest)
    return f"{quote}{prefix}{_masked(rest[:at])}{rest[at:]}"


def _masked(rest: str) -> str:
    """What follows `scheme://`."""
    place, mark, query = rest.partition("?")
    _, at, place = place.rpartition("@")  # the last: whoever writes a password escapes no "@" or "/"
    host, *path = place.split("/")
    if not _is_place(host):
        host, path = "***", []
    if path and re.search(r"(^|&)listen=1\b", query):
        path[-1] = "***"
    return f"{'***@' if at else ''}{'/'.join([host, *path])}{'?***' if mark else ''}"


def _is_place(host: str) -> bool:
    """Whether it is a host, and a port that is one; else it is the beginning of a password with a "/" or "?".
    A sentence may go on behind it."""
    port = host.rpartition("]")[2].rstrip(":,;.)}'\"").partition(":")[2]
    return not port or port.isdecimal()
