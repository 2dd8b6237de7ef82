"""Where a source may come from: what its text may say, and which addresses it may be read from."""

import os.path
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from server.wire.srt import srt_address
from server.wire.urls import find_scheme, publish_address, scheme

IpAddress = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")


class SourcePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of `[sources]` for one stream. Public addresses are always allowed."""

    schemes: tuple[str, ...]
    hosts: tuple[str, ...]  # names, addresses and networks
    folders: tuple[str, ...]  # absolute
    listen_ports: tuple[int, ...]


def check_text(source: str, policy: SourcePolicy) -> None:
    """Raises ValueError that names the rule for a source that its text alone forbids. Neither a file nor a
    name server is asked: the answer says nothing about what there is."""
    name = scheme(source) or "file"
    if name not in policy.schemes:
        raise ValueError(f"scheme {name!r} is not one of sources.schemes")
    match find_scheme(source).reader:
        case "file":
            if not _lies_in(os.path.abspath(file_path(source)), policy.folders):
                raise ValueError("it must lie in one of sources.folders")
        case "device":
            raise ValueError("devices of this machine are for the settings file alone")
        case "network":
            _check_network(source, policy)


def _check_network(source: str, policy: SourcePolicy) -> None:
    parts = urlsplit(source)
    host, port = parts.hostname, parts.port  # raises ValueError for a port that is none
    if not host:
        raise ValueError("it must name a host")
    # A UDP source binds its port, too, and libav takes options from its query that bind another one.
    match scheme(source):
        case "udp":
            listens = True
        case "srt":
            listens = srt_address(source).mode == "listener"
        case _:
            door = publish_address(source)
            listens = door is not None
            port = port if door is None else door.port  # its protocol has one where none is named
    if scheme(source) == "udp" and parts.query:
        raise ValueError("a UDP source of the API has no options")
    if listens and port not in policy.listen_ports:
        raise ValueError(f"port {port} is not one of sources.listen_ports")
    address = literal_address(host)
    if address is None and scheme(source) == "udp" and not allows_name(host, policy):
        raise ValueError(not_allowed(host))  # it may be a multicast group's
    if address is None or allows_address(host, address, policy):
        return
    if not listens or address.is_multicast:
        raise ValueError(not_allowed(host))


def not_allowed(host: str) -> str:
    """The one sentence for a host that is forbidden, unknown, or known to this machine's network only."""
    return f"{host} has no address that sources.hosts allows"


def literal_address(host: str) -> IpAddress | None:
    """The address that a host is written as, in any form that a C library takes; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # such as 127.1, 2130706433 or 0x7f.1
    except OSError:
        return None


def allows_address(host: str, address: IpAddress, policy: SourcePolicy) -> bool:
    """Whether the address that `host` stands for may be read from."""
    address = _inner(address)
    if allows_name(host, policy):
        return True
    networks = [network for name in policy.hosts if (network := parse_network(name)) is not None]
    if any(address in network for network in networks):
        return True
    return address.is_global and not address.is_multicast


def allows_name(host: str, policy: SourcePolicy) -> bool:
    """Whether the host is named, so that it may have any address."""
    return host.lower() in (name.lower() for name in policy.hosts)


def _inner(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def parse_network(text: str) -> IPv4Network | IPv6Network | None:
    """Network or address that the text is; None for a name. Raises ValueError for a wrong network."""
    try:
        return ip_network(text)
    except ValueError:
        if "/" in text:
            raise
        return None


def file_path(source: str) -> Path:
    """The path that a file's source names."""
    return Path(source.removeprefix("file://").removeprefix("file:"))


def allows_file(path: Path, policy: SourcePolicy) -> bool:
    """Whether the file may be read, wherever the links on its path lead."""
    return _lies_in(os.path.realpath(path), tuple(map(os.path.realpath, policy.folders)))


def _lies_in(path: str, folders: tuple[str, ...]) -> bool:
    return any(os.path.commonpath([path, folder]) == folder for folder in folders)
