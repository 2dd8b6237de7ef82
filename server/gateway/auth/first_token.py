"""The admin token that a service without settings of its own makes at its first start.

Only its hash is kept, in a file: the token is told once, and a restart takes the same one.
"""

import os
from pathlib import Path

from server.gateway.auth.tokens import digest, new_token
from server.settings import Auth, Token, check_table


def first_token(path: Path) -> tuple[Auth, str | None]:
    """Whom to let in, and the token where it has just been made.

    Raises ValueError where the file can't be written, or holds something else than a hash.
    """
    where = f"--first-token {path}"
    token = None
    try:
        if not path.exists():
            token = new_token()
            with open(path, "x", opener=_for_us_only) as file:
                file.write(digest(token) + "\n")
        written = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{where}: can't be kept there: {exc}") from exc
    admin = check_table(Token, {"name": "first token", "sha256": written, "scopes": ["admin"]}, where)
    return Auth(tokens=(admin,)), token


def _for_us_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
