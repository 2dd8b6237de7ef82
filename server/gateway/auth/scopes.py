"""Scopes: what a caller may do, as its token says."""

from dataclasses import dataclass
from typing import Literal

from server.gateway.errors import Forbidden, Unauthorized

Action = Literal["view", "publish", "admin", "metrics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request. `name` is for the log; `scopes` are those of the settings or of a JWT."""

    name: str
    scopes: frozenset[str]

    def may(self, action: Action, stream: str = "") -> bool:
        """`stream` is left out where the action is of no stream."""
        wanted = {"admin", action, f"{action}:*", f"{action}:{stream}"}
        return not self.scopes.isdisjoint(wanted)

    def require(self, action: Action, stream: str = "") -> None:
        """Raises Unauthorized of an anonymous caller, Forbidden of another that may not."""
        if self.may(action, stream):
            return
        if self is ANONYMOUS:
            raise Unauthorized("this needs a token: send Authorization: Bearer TOKEN")
        scope = f"{action}:{stream}" if stream else action
        raise Forbidden(f"this needs the scope {scope}, which the token of {self.name!r} lacks", scope=scope)

    def require_known(self) -> None:
        """Raises Unauthorized of an anonymous caller."""
        if self is ANONYMOUS:
            raise Unauthorized("this needs a token: send Authorization: Bearer TOKEN")


ANONYMOUS = Caller(name="anonymous", scopes=frozenset())
# Whoever calls a service without [auth].
EVERYONE = Caller(name="everyone", scopes=frozenset({"admin"}))
