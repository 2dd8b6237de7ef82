"""How a gateway and a host on another machine begin, or two gateways; what they say beside a worker's words.

gateway                          host
Hello (version, secret)  ──►
                         ◄──     Welcome, or Refused
ClockAsk, now and then   ──►
                         ◄──     ClockTold, at once
FilesOffered             ──►
                         ◄──     FilesNeeded
FilePart, of each        ──►
WorkerJob                ──►
                         ◄──     Started, or Refused
what a gateway says      ◄─►     what a worker says
                         ◄──     WorkerGone

To the gateway that is home of a stream another one says Subscribe in the place of files and job, then which
renditions are watched and when a key frame is needed; and hears what the stream's viewers get.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Annotated

import msgspec
from msgspec import Meta

from server.wire.codec import WORKERS, Decoder
from server.wire.messages import Message, Text

SECRET_BYTES = 32
# Of a message before the host knows whom it speaks to.
HELLO_BYTES = 4096
PART_BYTES = 1 << 18
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Secret = Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
FileName = Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]{0,254})?\Z")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorAddress:
    """Where a host or a gateway listens for others of the cluster."""

    host: str
    port: int
    fingerprint: str  # SHA-256 of its certificate, in hexadecimal digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Admits one stream to a host, once, or to a gateway that is its home: where that listens, what its
    certificate is, and the secret."""

    host: str
    port: int
    fingerprint: str  # SHA-256 of the certificate, in hexadecimal digits
    secret: bytes = field(repr=False)
    node: str  # the host's machine, or the gateway, as people call it


class Hello(Message, frozen=True):
    """Gateway → host, its first word."""

    version: Annotated[str, Meta(max_length=200)]
    stream: Annotated[str, Meta(max_length=200)]
    secret: Secret


class Welcome(Message, frozen=True):
    """Host → gateway: it speaks the same version, and knows the secret."""


class Refused(Message, frozen=True):
    """Host → gateway, its last word: why the stream can't be here."""

    reason: Text


class ClockAsk(Message, frozen=True):
    """Gateway → host: what is the time? Also a sign of life."""

    asked_ns: int  # by the gateway's clock


class ClockTold(Message, frozen=True):
    """Host → gateway, at once. Both clocks are CLOCK_MONOTONIC of their machines."""

    asked_ns: int
    heard_ns: int  # by the host's clock
    told_ns: int
    at_work: bool  # the worker's process computes, or would if it were let
    idle_cores: Annotated[float, Meta(ge=0)]  # of the host's machine, lately


class FileOffered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is what the job names, `name` a file in it, "" where it is a file itself."""

    path: Text
    name: FileName
    sha256: Sha256
    size: Annotated[int, Meta(ge=0)]


class FilesOffered(Message, frozen=True):
    """Gateway → host: what the job's paths hold here, artifacts by content."""

    files: Annotated[tuple[FileOffered, ...], Meta(max_length=200)]


class FilesNeeded(Message, frozen=True):
    """Host → gateway: those that it lacks."""

    files: tuple[Sha256, ...]


class FilePart(Message, frozen=True):
    """Gateway → host: the next bytes of a file that it needs; an empty part ends it."""

    sha256: Sha256
    data: Annotated[bytes, Meta(max_length=PART_BYTES)]


class Started(Message, frozen=True):
    """Host → gateway: the job has a worker."""

    isolated: bool


class WorkerGone(Message, frozen=True):
    """Host → gateway, its last word: how the worker ended."""

    how: Text


class Subscribe(Message, frozen=True):
    """Gateway → the stream's home: its packets, as they are watched here."""


class Viewers(Message, frozen=True):
    """Gateway → the stream's home, as it changes: so many viewers it has of the stream."""

    whep: Annotated[int, Meta(ge=0)]
    hls: Annotated[int, Meta(ge=0)]


HOSTS = (
    WORKERS
    | Hello
    | Welcome
    | Refused
    | ClockAsk
    | ClockTold
    | FilesOffered
    | FilesNeeded
    | FilePart
    | Started
    | WorkerGone
    | Subscribe
    | Viewers
)
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(HOSTS)


def decoder() -> Decoder:
    """Of all that a gateway and a host say."""
    return Decoder(_DECODER)


@cache
def wire_version() -> str:
    """The release, and a digest of every message: a build that says anything else speaks another version."""
    schema: Sequence[object] = msgspec.json.schema_components([HOSTS])
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
    return f"{version('livesr')}+{digest[:12]}"
