"""Where a service listens, and that no stranger is let in by an oversight."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from server.settings import Server

BACKLOG = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; `named` is what the settings say of it."""

    named: str
    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


def resolve(host: str, port: int, named: str) -> Address:
    """Raises ValueError where the host is unknown."""
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as exc:
        raise ValueError(f"{named}: can't listen there: {exc.strerror}") from exc
    assert isinstance(sockaddr[0], str)
    return Address(named=named, family=family, sockaddr=sockaddr)


def refuse_strangers(server: Server, address: Address) -> None:
    """Raises ValueError where the network would be let in without the operator's word."""
    if not server.open_to_the_world and not ip_address(address.sockaddr[0]).is_loopback:
        raise ValueError(
            f"server.host={server.host!r}: would let everyone in: write the lines that `livesr token admin` "
            "prints into the settings, or open_to_the_world = true under [server], or start with "
            "--first-token FILE"
        )


def listen(address: Address) -> socket.socket:
    """A listening socket; raises ValueError where the address can't be had."""
    try:
        # asyncio turns off Nagle's algorithm only on sockets that say they are TCP.
        listener = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address.sockaddr)
        listener.listen(BACKLOG)
    except OSError as exc:
        raise ValueError(f"{address.named}: can't listen there: {exc.strerror}") from exc
    return listener


def page_url(listener: socket.socket, everywhere: str = "") -> str:
    """The page's address, as a browser on this machine reaches it; `everywhere` stands for every address."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": everywhere or "127.0.0.1", "::": everywhere or "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
