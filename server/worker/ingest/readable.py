"""What libav reads from, where it opens nothing by itself."""

from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7


class Readable(Protocol):
    """What libav reads from (`av.open(io_open=…)`)."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def decrypted_url(url: str) -> tuple[str, bool]:
    """The URL without libav's prefix of an encrypted segment, and whether it had one."""
    encrypted = url.startswith(("crypto+", "crypto:"))
    return url[len("crypto+") :] if encrypted else url, encrypted


class Decrypted:
    """Segment of HLS under AES-128 (RFC 8216, 4.3.2.4)."""

    def __init__(self, body: Readable, options: dict[str, str]) -> None:
        """`options` as libav gives them: `key` and `iv` in hex."""
        self._body = body
        key, iv = bytes.fromhex(options["key"]), bytes.fromhex(options["iv"])
        self._cipher = Cipher(AES(key), CBC(iv)).decryptor()
        self._padding = PKCS7(AES.block_size).unpadder()
        self._ready = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ready and not self._ended:
            data = self._body.read(size)
            self._ready = self._padding.update(self._cipher.update(data)) if data else self._last()
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _last(self) -> bytes:
        self._ended = True
        try:
            return self._padding.update(self._cipher.finalize()) + self._padding.finalize()
        except ValueError:  # cut off, or another key's
            return b""

    def close(self) -> None:
        self._body.close()


class Nothing:
    """What can't be had: libav skips a lost segment, but not an exception."""

    def read(self, size: int, /) -> bytes:
        return b""

    def close(self) -> None:
        pass
