"""Signed paths for HLS: players send no headers, so the path itself lets in, to one stream and for a time.

The signature stands in front of the file's name: what a playlist names is relative to it, so keeps it.
"""

import base64
import hmac
import secrets
from collections.abc import Callable

from server.gateway.errors import InvalidPath

_MAC_BYTES = 16


class PathSigner:
    def __init__(self, key: Callable[[], bytes] | None = None) -> None:
        """`key`: as it is now, of all gateways of a cluster. Else there is one that lives as long as the
        process, like the segments: a restart takes every path back."""
        own = secrets.token_bytes(32)
        self._key = key or (lambda: own)

    def sign(self, stream: str, expires_s: int) -> str:
        """The part of the path that lets in; `expires_s` is Unix time."""
        mac = hmac.digest(self._key(), f"{stream}/{expires_s}".encode(), "sha256")[:_MAC_BYTES]
        return f"{expires_s}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    def check(self, stream: str, signature: str, now_s: float) -> None:
        """Raises InvalidPath."""
        expires, _, _ = signature.partition(".")
        digits = expires if expires.isascii() and expires.isdigit() and len(expires) <= 12 else "0"
        if not hmac.compare_digest(self.sign(stream, int(digits)).encode(), signature.encode()):
            raise InvalidPath(f"the path to stream {stream!r} is not one that this service signed")
        if int(digits) <= now_s:
            raise InvalidPath(f"the path to stream {stream!r} has expired: ask the API for a new one")
