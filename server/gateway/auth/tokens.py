"""Bearer tokens of the settings: long random words, of which only the SHA-256 is kept.

A plain hash suffices where a password would need a slow one: 256 random bits can't be guessed from it.
"""

import hashlib
import secrets
from collections.abc import Iterable

from server.gateway.auth.scopes import Caller
from server.settings import Token


def new_token() -> str:
    # The prefix lets scanners of repositories and logs find a token that leaked.
    return f"livesr_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """SHA-256 as the settings have it, in 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """Looked up by hash: how long that takes says nothing about the tokens."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._callers = {
            token.sha256: Caller(name=token.name, scopes=frozenset(token.scopes)) for token in tokens
        }

    def find(self, token: str) -> Caller | None:
        return self._callers.get(digest(token))
