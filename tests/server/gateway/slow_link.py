"""A viewer behind a link that carries so many bits a second and holds so much before it drops."""

import asyncio
import re

from tests.server.gateway.scripted_gateway import Gateway, Viewer

QUEUE_S = 0.1


class SlowLink:
    """Two sockets: packets to the viewer wait their turn, those to the gateway pass."""

    def __init__(self, rate_bps: float) -> None:
        self.rate_bps = rate_bps
        self.bytes_in = 0
        self._free_s = 0.0
        self._viewer: tuple[str, int] | None = None

    async def open(self, gateway: tuple[str, int], at: tuple[str, int] = ("127.0.0.1", 0)) -> int:
        """The port that stands for the gateway's."""
        loop = asyncio.get_running_loop()
        self._to_viewer, _ = await loop.create_datagram_endpoint(lambda: _Side(self._upstream), local_addr=at)
        self._to_gateway, _ = await loop.create_datagram_endpoint(
            lambda: _Side(self._downstream), remote_addr=gateway
        )
        return self._to_viewer.get_extra_info("sockname")[1]

    def close(self) -> None:
        self._to_viewer.close()
        self._to_gateway.close()

    def _upstream(self, data: bytes, sender: tuple[str, int]) -> None:
        self._viewer = sender
        self._to_gateway.sendto(data)

    def _downstream(self, data: bytes, sender: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        self.bytes_in += len(data)
        sent_s = max(self._free_s, loop.time()) + len(data) * 8 / self.rate_bps
        if sent_s - loop.time() < QUEUE_S:
            self._free_s = sent_s
            loop.call_at(sent_s, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self._to_viewer.is_closing():
            self._to_viewer.sendto(data, self._viewer)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, on_data) -> None:
        self.datagram_received = on_data


class SlowViewer(Viewer):
    """Knows the gateway by the link's port only, and the other way round."""

    def __init__(self, gateway: Gateway, rate_bps: float) -> None:
        super().__init__(gateway, audio=False)
        self.link = SlowLink(rate_bps)

    def to_gateway(self, offer: str) -> str:
        return re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", offer)

    async def from_gateway(self, answer: str) -> str:
        port = int(re.search(r"127\.0\.0\.1 (\d+) typ host", answer)[1])
        ours = await self.link.open(("127.0.0.1", port))
        return answer.replace(f" {port} ", f" {ours} ")

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.link.close()
