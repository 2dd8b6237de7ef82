"""Where the service listens, and who may do what."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from server.settings.table import Table


class Server(Table):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    # Base URL where other gateways of a cluster and their players find this one; empty: where it listens.
    advertise: str = ""
    # What of a stream that is at home at another gateway: its packets and answers come through this one, or
    # clients are sent there.
    streams_elsewhere: Literal["relay", "redirect"] = "relay"
    drain_s: float = Field(default=10.0, ge=0, le=3600)  # at the end, for viewers to be told
    # File of the streams that the API makes; None: beside the settings, empty: none.
    state: str | None = None
    # Without [auth], whether others than this machine may do everything.
    open_to_the_world: bool = False
    # HOST:PORT of a listener with /metrics alone, which needs no token; empty: none.
    metrics_listener: str = ""
    # File that has the URL of the service while it listens; empty: none.
    url_file: str = ""
    # Addresses of proxies whose word is taken for whom a request is from.
    trusted_proxies: tuple[str, ...] = ()
    # Other sites whose pages may play: WHEP and HLS only, never the API.
    cors_origins: tuple[str, ...] = ()
    # Names by which browsers reach this service, beside localhost, `host` and every address; "*": any.
    hosts: tuple[str, ...] = ()

    @field_validator("advertise")
    @classmethod
    def _base_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s?#@]+/?", url):
            raise ValueError(f"{url!r} must look like https://gateway-1.example.com, without a path")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ip_address(address)  # raises ValueError that names it
        return addresses

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} must look like https://example.com, without a path; or *")
        return origins

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if host != "*" and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
                raise ValueError(f"{host!r} must be a name like video.example.com, without a port; or *")
        return hosts

    @field_validator("metrics_listener")
    @classmethod
    def _host_and_port(cls, listener: str) -> str:
        if listener:
            split_address(listener)
        return listener


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, where an IPv6 host stands in brackets; raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):(\d{1,5})", address)
    if found is None or int(found[3]) > 65535:
        raise ValueError("must be HOST:PORT, as 127.0.0.1:9101 or [::1]:9101")
    return found[1] or found[2], int(found[3])


def _known_scope(scope: str) -> str:
    if not re.fullmatch(r"admin|metrics|(view|publish):(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,62})", scope):
        raise ValueError("must be admin, metrics, view:ID or publish:ID, where the ID * is every stream")
    return scope


Scope = Annotated[str, AfterValidator(_known_scope)]


class Token(Table):
    """A bearer token, known by its hash; `livesr token` makes both."""

    name: str = Field(pattern=r"^[A-Za-z0-9 ._@-]{1,64}$", description="For the log")
    sha256: str
    scopes: tuple[Scope, ...] = Field(min_length=1)

    @field_validator("sha256")
    @classmethod
    def _hash(cls, sha256: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError("must be the SHA-256 of a token in 64 hexadecimal digits: livesr token makes it")
        return sha256


class Jwt(Table):
    """Whose JSON Web Tokens are taken: HS256 by a shared secret; RS256, ES256 or EdDSA by public keys."""

    secret_file: Path | None = None
    jwks_file: Path | None = None
    issuer: str = Field(default="livesr", min_length=1)
    audience: str = Field(default="livesr", min_length=1)
    leeway_s: int = Field(default=10, ge=0, le=300)

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.secret_file is None) == (self.jwks_file is None):
            raise ValueError("must have either secret_file or jwks_file")
        return self


class Auth(Table):
    """Who may do what. Without this table everyone may do everything."""

    tokens: tuple[Token, ...] = ()
    jwt: Jwt | None = None
    hls_path_s: int = Field(default=43_200, ge=60, le=2_592_000)  # how long a signed path lets in

    @model_validator(mode="after")
    def _somebody_is_let_in(self) -> Self:
        if not self.tokens and self.jwt is None:
            raise ValueError("must have [[auth.tokens]] or [auth.jwt]: livesr token makes the first")
        return self
