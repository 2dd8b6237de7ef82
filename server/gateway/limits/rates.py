"""Requests a second of each address: token buckets, as many as there is room for."""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

MOST = 10_000  # addresses remembered; the one that was quiet for longest is forgotten first


def origin(host: str) -> str:
    """Whom an address counts for: itself, or of IPv6 the /64 that one customer has to choose from."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return str(address)


class Rates:
    """`burst` at once, but always one, and `per_s` in the long run."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what was left, and when

    def wait_s(self, origin: str, now_s: float) -> float:
        """Seconds until one more is allowed; 0 for now."""
        return max(0.0, (1.0 - self._left(origin, now_s)) / self._per_s)

    def take(self, origin: str, now_s: float) -> None:
        self._buckets[origin] = self._left(origin, now_s) - 1.0, now_s
        self._buckets.move_to_end(origin)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)

    def _left(self, origin: str, now_s: float) -> float:
        left, at_s = self._buckets.get(origin, (self._burst, now_s))
        return min(self._burst, left + (now_s - at_s) * self._per_s)
