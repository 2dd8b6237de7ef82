"""TURN credentials that expire, of a secret shared with the server (coturn's `use-auth-secret`).

https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence

from server.settings import IceServer

LIFETIME_S = 86_400  # coturn looks again at each refresh of an allocation: a viewer may watch for a day


def issue(servers: Sequence[IceServer], who: str) -> tuple[IceServer, ...]:
    """The servers with credentials for one session; none of them tells its secret."""
    return tuple(_issue(server, who) if server.secret else server for server in servers)


def _issue(server: IceServer, who: str) -> IceServer:
    assert server.secret is not None
    username = f"{int(time.time()) + LIFETIME_S}:{who}"
    digest = hmac.digest(server.secret.encode(), username.encode(), hashlib.sha1)
    credential = base64.b64encode(digest).decode()
    return server.model_copy(update={"username": username, "credential": credential, "secret": None})
