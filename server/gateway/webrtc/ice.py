"""How a viewer and we find each other (RFC 8445), and what a stranger's candidates may cost."""

import logging
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from aioice import Candidate, Connection, stun
from aioice.ice import StunProtocol
from aiortc import RTCIceGatherer, RTCIceServer
from aiortc.rtcicetransport import RTCIceCandidate, connection_kwargs

from server.settings import IceServer

log = logging.getLogger(__name__)


class RemoteCandidates:
    """Chooses from a viewer's candidates those worth packets, up to a limit for the whole session."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[tuple[str, int]] = set()
        self._full = False

    def choose(self, candidates: Iterable[RTCIceCandidate], *, loopback: bool) -> list[RTCIceCandidate]:
        """`loopback`: whether we are to be reached there, and so may send there."""
        chosen = []
        for candidate in candidates:
            if len(self._seen) >= self._limit:
                if not self._full:
                    log.info("a viewer has more candidates than limits.max_candidates=%d", self._limit)
                self._full = True
                break
            key = candidate.ip, candidate.port
            if key not in self._seen and _is_usable(candidate, loopback):
                self._seen.add(key)
                chosen.append(candidate)
        return chosen


def _is_usable(candidate: RTCIceCandidate, loopback: bool) -> bool:
    """An address of one machine. A browser's .local names would need multicast to resolve, and nothing is
    lost without them: its checks reach us, and we learn the address from those."""
    try:
        address = ip_address(candidate.ip)
    except ValueError:
        return False
    return (
        candidate.component == 1
        and candidate.protocol.lower() == "udp"
        and 0 < candidate.port < 1 << 16
        and not (address.is_multicast or address.is_unspecified or address.is_link_local)
        and (loopback if address.is_loopback else not address.is_reserved)
    )


class Gatherer(RTCIceGatherer):
    """Gathers at the given addresses, where there are any: aioice never offers 127.0.0.1 by itself."""

    def __init__(
        self, servers: Sequence[IceServer], addresses: Sequence[str], *, max_candidates: int
    ) -> None:
        super().__init__(iceServers=[])
        self._connection = _Connection(
            addresses,
            max_candidates=max_candidates,
            **connection_kwargs([_rtc_ice_server(server) for server in servers]),
        )

    @property
    def at_loopback(self) -> bool:
        return any(ip_address(c.ip).is_loopback for c in self.getLocalCandidates())


def _rtc_ice_server(server: IceServer) -> RTCIceServer:
    return RTCIceServer(urls=list(server.urls), username=server.username, credential=server.credential)


class _Connection(Connection):
    def __init__(self, addresses: Sequence[str], *, max_candidates: int, **options: Any) -> None:
        super().__init__(ice_controlling=False, **options)
        self._addresses = list(addresses)
        self._max_remote = 2 * max_candidates  # those we are told, and those we learn

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109
    ) -> list[Candidate]:
        return await super().get_component_candidates(component, self._addresses or addresses, timeout)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        # Each check from a new address is answered by checks of ours: seven packets for one, to an address
        # that may be forged.
        known = any((c._network_host, c.port) == addr for c in self._remote_candidates)
        if known or len(self._remote_candidates) < self._max_remote:
            super().check_incoming(message, addr, protocol)
