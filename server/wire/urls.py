"""Sources as URLs: which schemes there are, and what logs and the API may show of one."""

import re
from dataclasses import dataclass
from typing import Literal

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """`reader` names what opens it (`server.worker.ingest.open`)."""

    reader: Literal["file", "demo", "synthetic", "network"]
    listens: bool = False  # ?listen=1 waits for a publisher at that address


# The one table: the settings refuse what is not in it, and a new scheme of libav's is a line here.
SCHEMES = {
    "rtsp": Scheme(reader="network", listens=True),
    "rtsps": Scheme(reader="network"),
    "rtmp": Scheme(reader="network", listens=True),
    "rtmps": Scheme(reader="network"),
    "http": Scheme(reader="network"),
    "https": Scheme(reader="network"),
    "udp": Scheme(reader="network"),
    "synthetic": Scheme(reader="synthetic"),
    "demo": Scheme(reader="demo"),
    "file": Scheme(reader="file"),
}


def scheme(url: str) -> str:
    """The scheme in lower case; empty for a plain path."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else ""


def find_scheme(url: str) -> Scheme:
    """Raises ValueError for a scheme that is not in the table. A plain path is a file's."""
    name = scheme(url)
    if name == "srt":
        raise ValueError(
            "scheme 'srt' is not in the FFmpeg that PyAV ships; "
            "let ffmpeg receive it and send it on as RTMP, RTSP or MPEG-TS over UDP"
        )
    if name and name not in SCHEMES:
        raise ValueError(f"scheme {name!r} must be one of {', '.join(SCHEMES)}, or the source a file's path")
    return SCHEMES[name or "file"]


def mask_credentials(text: str) -> str:
    """The text for logs and the API: of every URL in it the user, password and query are hidden, and the key
    of a listening source, which is the last part of its path."""
    return re.sub(r"(\w://)([^\s/?'\"]+@)?([^\s?'\"]*)(\?[^\s'\"]*)?", _masked, text)


def _masked(url: re.Match[str]) -> str:
    prefix, user, rest, query = url.groups()
    host, *path = rest.split("/")
    if path and query and re.search(r"[?&]listen=1\b", query):
        rest = "/".join([host, *path[:-1], "***"])
    return f"{prefix}{'***@' if user else ''}{rest}{'?***' if query else ''}"
