"""The guard at the doors: from a request's headers to what its caller may do."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from server.gateway.auth.jwt import InvalidJwt, JwtVerifier
from server.gateway.auth.paths import PathSigner
from server.gateway.auth.scopes import ANONYMOUS, EVERYONE, Action, Caller
from server.gateway.auth.tokens import Tokens
from server.gateway.errors import InvalidToken, TooManyRequests
from server.gateway.limits.rates import Rates, origin
from server.gateway.limits.refusals import Refusals
from server.settings import Auth, Limits

_Credentials = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="A token of the settings, or a JWT.")),
]


class Guard:
    """Its methods are dependencies of routes. Raises ValueError where the settings' keys can't be read."""

    def __init__(
        self,
        auth: Auth | None,
        limits: Limits,
        refusals: Refusals,
        path_key: Callable[[], bytes] | None = None,
    ) -> None:
        """`path_key` as `PathSigner` has it."""
        self._auth = auth
        self._refusals = refusals
        self._per_min = limits.failed_logins_per_min
        self._failures = Rates(self._per_min / 60, self._per_min)
        self._tokens = Tokens(auth.tokens if auth else ())
        self._jwt = JwtVerifier(auth.jwt) if auth and auth.jwt else None
        self._paths = PathSigner(path_key)

    def reload(self, auth: Auth | None) -> None:
        """Lets these in from now on; signed paths go on. Raises ValueError, with nothing changed, where the
        settings' keys can't be read."""
        jwt = JwtVerifier(auth.jwt) if auth and auth.jwt else None
        self._auth, self._jwt = auth, jwt
        self._tokens = Tokens(auth.tokens if auth else ())

    @property
    def on(self) -> bool:
        """Whether it matters who asks."""
        return self._auth is not None

    async def caller(self, request: Request, credentials: _Credentials) -> Caller:
        """Whoever sent this request; raises InvalidToken."""
        if self._auth is None:
            return EVERYONE
        if credentials is None:
            return ANONYMOUS
        client = request.client.host if request.client else ""
        return self._verify(credentials.credentials, client)

    async def known(self, request: Request, credentials: _Credentials) -> Caller:
        """A caller with any token at all; raises Unauthorized."""
        caller = await self.caller(request, credentials)
        caller.require_known()
        return caller

    def needs(self, action: Action) -> Callable[[Request, _Credentials], Awaitable[Caller]]:
        """A dependency that lets only those pass who may do this, to the path's stream where it has one."""

        async def allowed(request: Request, credentials: _Credentials) -> Caller:
            caller = await self.caller(request, credentials)
            caller.require(action, request.path_params.get("stream", ""))
            return caller

        return allowed

    def sign_path(self, stream: str) -> tuple[str, int] | None:
        """A signature for the stream's HLS path and the Unix time at which it ends; None without [auth]."""
        if self._auth is None:
            return None
        expires_s = int(time.time()) + self._auth.hls_path_s
        return self._paths.sign(stream, expires_s), expires_s

    async def signed(self, stream: str, signature: str) -> None:
        """A dependency of paths with a signature; raises InvalidPath."""
        self._paths.check(stream, signature, time.time())

    def _verify(self, token: str, client: str) -> Caller:
        # First what costs nothing: neighbours behind one address can't lock out each other's tokens.
        if caller := self._tokens.find(token):
            return caller
        who, now_s = origin(client), time.monotonic()
        if wait_s := self._failures.wait_s(who, now_s):
            self._refusals.add("failed_logins", client)
            raise TooManyRequests(
                f"too many wrong tokens; limits.failed_logins_per_min={self._per_min:g}",
                retry_after_s=math.ceil(wait_s),
            )
        try:
            if self._jwt is None:
                raise InvalidJwt("it is none of the settings'")
            return self._jwt.verify(token)
        except InvalidJwt as exc:
            self._failures.take(who, now_s)
            raise InvalidToken(f"the token is not valid: {exc}") from exc
