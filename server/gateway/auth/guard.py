"""The guard at the doors: from a request's headers to what its caller may do."""

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from server.gateway.auth.jwt import InvalidJwt, JwtVerifier
from server.gateway.auth.paths import PathSigner
from server.gateway.auth.scopes import ANONYMOUS, EVERYONE, Action, Caller
from server.gateway.auth.tokens import Tokens
from server.gateway.errors import InvalidToken
from server.settings import Auth

_Credentials = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="A token of the settings, or a JWT.")),
]


class Guard:
    """Its methods are dependencies of routes. Raises ValueError where the settings' keys can't be read."""

    def __init__(self, auth: Auth | None) -> None:
        self._auth = auth
        self._tokens = Tokens(auth.tokens if auth else ())
        self._jwt = JwtVerifier(auth.jwt) if auth and auth.jwt else None
        self._paths = PathSigner()

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
        return self._verify(credentials.credentials)

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

    def _verify(self, token: str) -> Caller:
        if caller := self._tokens.find(token):
            return caller
        if self._jwt is None:
            raise InvalidToken("the token is none of the settings'")
        try:
            return self._jwt.verify(token)
        except InvalidJwt as exc:
            raise InvalidToken(f"the token is not valid: {exc}") from exc
