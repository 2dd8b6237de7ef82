"""Which ICE candidates of a stranger are tried: each makes us send packets where the stranger chooses."""

from collections.abc import Iterable
from ipaddress import ip_address

from aiortc.rtcicetransport import RTCIceCandidate

from server.wire.logs import get_logger

log = get_logger(__name__)


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
                    log.info("candidates left out", key="limits.max_candidates", limit=self._limit)
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
