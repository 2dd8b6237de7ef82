"""TCP connections to a source: names are resolved and checked, and the checked address itself is dialled."""

import socket
import ssl
from ipaddress import ip_address

from server.wire.source_policy import SourcePolicy, allows_address, not_allowed


class Refused(Exception):
    """A connection that the policy forbids; the message says no more than that."""


class Dialer:
    """`policy` None: any address may be called."""

    def __init__(self, policy: SourcePolicy | None, *, timeout_s: float) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    def check_scheme(self, name: str) -> None:
        """Raises Refused."""
        if self._policy is not None and name not in self._policy.schemes:
            raise Refused(f"scheme {name!r} is not one of sources.schemes")

    def dial(self, host: str, port: int, *, tls: bool = False) -> socket.socket:
        """A connection whose reads and writes end after the timeout. Raises Refused, or OSError."""
        failure: OSError | None = None
        for address in self.addresses(host, port):
            try:
                connection = socket.create_connection((address, port), self._timeout_s)
            except OSError as exc:
                failure = exc
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(connection, server_hostname=host) if tls else connection
        raise failure or Refused(not_allowed(host))

    def addresses(self, host: str, port: int) -> list[str]:
        """Those of the host that may be called, as they are now. Raises OSError."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            if self._policy is None:
                raise
            return []  # the same answer for a name that is unknown and one that is only known here
        addresses = [str(entry[4][0]) for entry in found]
        if self._policy is None:
            return addresses
        policy = self._policy
        return [a for a in addresses if allows_address(host, ip_address(a.partition("%")[0]), policy)]
