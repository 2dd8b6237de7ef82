"""DTLS-SRTP with one publisher: what it sends is bounded before it is read."""

import time
from collections.abc import Callable

from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceTransport

from server.gateway.fanout.budget import Budget

# Of a key frame, which comes at once, after a time of nothing.
_BURST_S = 2.0


class PublisherTransport(RTCDtlsTransport):
    """`on_rtp` and `on_rtcp` get packets within `bytes_per_s`, `on_refused` hears of each other one."""

    def __init__(
        self,
        ice: RTCIceTransport,
        certificate: RTCCertificate,
        *,
        bytes_per_s: float,
        on_rtp: Callable[[bytes], None],
        on_rtcp: Callable[[bytes], None],
        on_refused: Callable[[], None],
    ) -> None:
        super().__init__(ice, [certificate])
        self._budget = Budget(capacity=_BURST_S * bytes_per_s, per_s=bytes_per_s)
        self._on_rtp = on_rtp
        self._on_rtcp = on_rtcp
        self._on_refused = on_refused

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if self._takes(data):
            self._on_rtp(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        if self._takes(data):
            self._on_rtcp(data)

    def _takes(self, data: bytes) -> bool:
        if self._budget.take(len(data), time.monotonic()):
            return True
        self._on_refused()
        return False
