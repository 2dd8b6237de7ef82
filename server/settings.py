"""What the operator decides: one TOML file, read once at start and passed down."""

import os
import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from engine.load import BACKENDS, zoo
from server.wire.messages import DEFAULT_KEYFRAME_INTERVAL_S, WorkerJob
from server.wire.source_policy import SourcePolicy, check_text, parse_network
from server.wire.urls import SCHEMES, find_scheme, mask_credentials

T = TypeVar("T", bound=BaseModel)

DEFAULT_MODEL = "awsrn-live-x2"

StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PipelineOptions(_Table):
    """How a stream is processed; `[defaults]` sets it for every stream, a stream's own table for that one."""

    model: str = Field(
        default=DEFAULT_MODEL, min_length=1, description="Zoo name, or path of an artifact or a checkpoint"
    )
    backend: str | None = Field(
        default=None, description="Which engine runs the network; unset: the best of the machine"
    )
    lanes: int = Field(
        default=0, ge=0, le=16, description="Frames in flight in the engine; 0: as many as suit it"
    )
    engine_threads: int = Field(
        default=0, ge=0, le=256, description="CPU threads of the engine; 0: every core"
    )
    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    preset: str = Field(default="superfast", min_length=1, description="The encoder's own preset name")
    bitrate_bps: int = Field(
        default=0, ge=0, le=200_000_000, description="Of the upscaled video; 0: chosen from its size and rate"
    )
    keyframe_interval_s: float = Field(default=DEFAULT_KEYFRAME_INTERVAL_S, ge=0.5, le=10.0)
    source_timeout_s: float = Field(
        default=10.0, gt=0, le=120, description="A source silent for longer is reopened"
    )
    engine_patience_s: float = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="An engine that takes longer to load is stood in for by bicubic",
    )
    loop: bool = Field(default=True, description="A file starts again at its end")

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        # A path is the worker's to open: it may run on another machine.
        path = Path(model)
        is_name = path.name == model and not path.suffix and not path.exists()
        if is_name and model not in zoo():
            raise ValueError(f"must be one of {', '.join(zoo())}, or a path")
        return model

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str | None) -> str | None:
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"must be one of {', '.join(BACKENDS)}")
        return backend


class StreamSettings(PipelineOptions):
    """One stream: where it comes from and how it is processed."""

    id: StreamId = Field(description="Name in URLs and metrics")
    source: str = Field(
        min_length=1,
        max_length=2048,
        description=f"URL ({', '.join(SCHEMES)}) or path of a file",
        examples=["rtsp://camera.example/stream"],
    )

    @field_validator("source")
    @classmethod
    def _known_scheme(cls, source: str) -> str:
        if any(ord(c) < 32 for c in source):
            raise ValueError("must not hold control characters")
        if find_scheme(source).reader == "network" and not urlsplit(source).netloc:
            raise ValueError("must name a host")
        return source

    def job(self, limits: "Limits", policy: SourcePolicy | None = None) -> WorkerJob:
        """What the stream's worker is told; `policy` is None for a stream of the settings."""
        options = self.model_dump(include=set(PipelineOptions.model_fields))
        return WorkerJob(
            stream=self.id,
            source=self.source,
            policy=policy,
            max_width=limits.max_width,
            max_height=limits.max_height,
            worker_memory_bytes=limits.worker_memory_bytes,
            **options,
        )


class Server(_Table):
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    # Without [auth], whether others than this machine may do everything.
    open_to_the_world: bool = False
    # HOST:PORT of a listener with /metrics alone, which needs no token; empty: none.
    metrics_listener: str = ""
    # Addresses of proxies whose word is taken for whom a request is from.
    trusted_proxies: tuple[str, ...] = ()
    # Other sites whose pages may play: WHEP and HLS only, never the API.
    cors_origins: tuple[str, ...] = ()
    # Names by which browsers reach this service, beside localhost, `host` and every address; "*": any.
    hosts: tuple[str, ...] = ()

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


class Token(_Table):
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


class Jwt(_Table):
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


class Auth(_Table):
    """Who may do what. Without this table everyone may do everything."""

    tokens: tuple[Token, ...] = ()
    jwt: Jwt | None = None
    hls_path_s: int = Field(default=43_200, ge=60, le=2_592_000)  # how long a signed path lets in

    @model_validator(mode="after")
    def _somebody_is_let_in(self) -> Self:
        if not self.tokens and self.jwt is None:
            raise ValueError("must have [[auth.tokens]] or [auth.jwt]: livesr token makes the first")
        return self


class IceServer(_Table):
    urls: tuple[str, ...] = Field(min_length=1)
    username: str | None = None
    credential: str | None = None
    secret: str | None = Field(default=None, min_length=1)  # shared with the TURN server

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.secret is not None and (self.username is not None or self.credential is not None):
            raise ValueError("username and credential must be left out where secret is given")
        return self

    @field_validator("urls")
    @classmethod
    def _stun_or_turn(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.fullmatch(r"(stun|turn|turns):[^?:\s]+(:\d+)?(\?transport=(udp|tcp))?", url):
                raise ValueError(f"{url!r} must look like stun:HOST:PORT or turn:HOST:PORT?transport=udp")
        return urls


class WebRtc(_Table):
    ice_servers: tuple[IceServer, ...] = ()
    # Of this machine's addresses, those to offer to viewers; empty: every one but loopback.
    host_addresses: tuple[str, ...] = ()
    # Where viewers find this machine behind NAT, told to them in place of its private addresses.
    announced_addresses: tuple[str, ...] = ()
    # First and last port for viewers' media, one for each viewer and address; unset: the system chooses.
    udp_ports: tuple[int, int] | None = None

    @field_validator("udp_ports")
    @classmethod
    def _ports(cls, ports: tuple[int, int] | None) -> tuple[int, int] | None:
        if ports is not None and not 0 < ports[0] <= ports[1] < 1 << 16:
            raise ValueError("must be the first and the last of ports from 1 to 65535")
        return ports

    @field_validator("host_addresses", "announced_addresses")
    @classmethod
    def _addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ip_address(address)  # raises ValueError that names it
        return addresses


class Limits(_Table):
    max_streams: int = Field(default=16, ge=1)
    max_width: int = Field(default=1920, ge=16, le=8192)  # of a source picture
    max_height: int = Field(default=1080, ge=16, le=8192)
    max_viewers_per_stream: int = Field(default=200, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int = Field(default=128, ge=1)
    client_timeout_s: float = Field(default=10.0, gt=0, le=300)
    max_header_bytes: int = Field(default=16_384, ge=1024, le=65_536)
    max_body_bytes: int = Field(default=65_536, ge=4096)
    hls_requests_per_s: float = Field(default=100.0, gt=0)  # of an address
    failed_logins_per_min: float = Field(default=30.0, gt=0)  # of an address
    # One address may be an office or a proxy, but must not take every seat, nor hold many without connecting.
    max_viewers_per_address: int = Field(default=100, ge=1)
    max_pending_per_address: int = Field(default=32, ge=1)
    # Of one WebRTC viewer. Each makes us send packets to an address that the viewer chooses.
    max_candidates: int = Field(default=20, ge=1, le=100)
    ice_timeout_s: float = Field(default=8.0, gt=0, le=60)  # a viewer unreachable for so long loses its seat
    worker_memory_bytes: int = Field(default=8 << 30, ge=0)  # the largest model at 1080p takes 2.7 GB

    @field_validator("worker_memory_bytes")
    @classmethod
    def _enough_to_start(cls, most: int) -> int:
        if 0 < most < 1 << 29:
            raise ValueError(f"must be 0 or at least {1 << 29}: a worker takes 0.35 GB for the least picture")
        return most


class Sources(_Table):
    """What streams that the API makes may read; those of the settings may read anything."""

    schemes: tuple[str, ...] = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "synthetic", "demo")
    hosts: tuple[str, ...] = ()  # names, addresses and networks beside public addresses
    folders: tuple[str, ...] = ()  # that files may lie in
    listen_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()  # of listen=1 and UDP

    @field_validator("schemes")
    @classmethod
    def _known(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        for name in schemes:
            if name not in SCHEMES:
                raise ValueError(f"{name!r} must be one of {', '.join(SCHEMES)}")
        return schemes

    @field_validator("hosts")
    @classmethod
    def _names_or_networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if parse_network(host) is None and not re.fullmatch(r"[\w.-]+", host):
                raise ValueError(f"{host!r} must be a name, an address or a network such as 10.0.0.0/8")
        return hosts

    @field_validator("folders")
    @classmethod
    def _absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not Path(folder).is_absolute():
                raise ValueError(f"{folder!r} must be absolute")
        return tuple(map(os.path.normpath, folders))

    def policy(self) -> SourcePolicy:
        """These rules, as a worker is told them."""
        return SourcePolicy(
            schemes=self.schemes, hosts=self.hosts, folders=self.folders, listen_ports=self.listen_ports
        )


class GpuSharing(_Table):
    slots: int = Field(default=4, ge=1, le=64)  # streams that share one GPU


class Hls(_Table):
    segment_s: float = Field(default=2.0, ge=1.0, le=10.0)
    segments: int = Field(default=6, ge=3, le=60)  # in the playlist


class Settings(_Table):
    """The whole file. Every key has a default; without a file no stream runs until the API asks."""

    server: Server = Server()
    auth: Auth | None = None
    webrtc: WebRtc = WebRtc()
    defaults: PipelineOptions = PipelineOptions()
    limits: Limits = Limits()
    sources: Sources = Sources()
    gpu: GpuSharing = GpuSharing()
    hls: Hls = Hls()
    streams: tuple[StreamSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _streams_take_defaults(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        defaults, streams = tables.get("defaults", {}), tables.get("streams", [])
        if isinstance(defaults, dict) and isinstance(streams, list | tuple):
            merged = [{**defaults, **s} if isinstance(s, dict) else s for s in streams]
            return {**tables, "streams": merged}
        return tables

    @model_validator(mode="after")
    def _streams_fit(self) -> Self:
        ids = [stream.id for stream in self.streams]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"streams: id {name!r} must be given once")
        if len(ids) > self.limits.max_streams:
            raise ValueError(f"streams: {len(ids)} are above limits.max_streams={self.limits.max_streams}")
        return self

    def stream(self, **fields: Any) -> StreamSettings:
        """A stream with these fields, the rest from `[defaults]`; raises pydantic.ValidationError."""
        return StreamSettings(**self.defaults.model_dump() | fields)

    def check_stranger(self, stream: StreamSettings) -> None:
        """Raises ValueError, naming key, value and rule, for a stream that the API may not make."""
        try:
            check_text(stream.source, self.sources.policy())
        except ValueError as exc:
            raise ValueError(f"source={mask_credentials(stream.source)!r}: {exc}") from None
        own = {self.defaults.model, *(own.model for own in self.streams)}
        if stream.model not in zoo() and stream.model not in own:
            raise ValueError(f"model={stream.model!r}: must be one of {', '.join(zoo())}, or in the settings")


def load(path: Path) -> Settings:
    """Reads a settings file; raises ValueError naming the file, the key, the value and the rule."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path}: not valid TOML: {exc}") from exc
    return check(tables, str(path))


def check(tables: dict[str, Any], where: str) -> Settings:
    """Settings out of tables; raises ValueError naming their origin, the key, the value and the rule."""
    return check_table(Settings, tables, where)


def check_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """One table of that kind; raises ValueError like `check`."""
    try:
        return kind.model_validate(table)
    except ValidationError as exc:
        errors = "; ".join(describe_error(dict(error)) for error in exc.errors())
        raise ValueError(f"{where}: {errors}") from exc


def describe_error(error: dict[str, object]) -> str:
    """One pydantic error as 'key=value: rule'."""
    location = error.get("loc", ())
    assert isinstance(location, tuple)
    key = ".".join(str(part) for part in location if part != "body") or "body"
    value = error.get("input")
    # Who takes one for the other writes a token where its hash belongs: that must not get into the log.
    hidden = isinstance(value, dict | list) or value is None or key.endswith(("sha256", "credential"))
    shown = "" if hidden else f"={mask_credentials(repr(value))}"
    return f"{key}{shown}: {str(error.get('msg', '')).removeprefix('Value error, ')}"
