"""A bad network: a UDP relay that loses, delays and throttles, the same way for the same seed."""

import asyncio
import random
import re
import threading
from collections.abc import Callable
from typing import Any, Self

Address = tuple[str, int]
OnData = Callable[[bytes, Address], None]


class Relay:
    """Stands between one viewer and the server; `loss`, `rtt_s` and `rate_bps` may be changed at any time.

    Loss and delay are of both ways; the rate is of the way to the viewer, where `queue_s` of it wait before
    more is dropped. A context manager with a thread of its own.
    """

    def __init__(
        self,
        *,
        loss: float = 0.0,
        rtt_s: float = 0.0,
        rate_bps: float = 0.0,
        queue_s: float = 0.3,
        seed: int = 0,
        at: Address = ("127.0.0.1", 0),
    ) -> None:
        """`rate_bps` 0: as fast as it goes. `at`: where it stands for the server."""
        self._at = at
        self.loss, self.rtt_s, self.rate_bps, self.queue_s = loss, rtt_s, rate_bps, queue_s
        self.bytes_in = 0  # from the server, what is dropped included
        self._random = random.Random(seed)
        self._free_s = 0.0
        self._viewer: Address | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        self._to_viewer = self._open(self._from_viewer, at=self._at)
        self._to_server: asyncio.DatagramTransport | None = None
        return self

    def __exit__(self, *exc: object) -> None:
        async def close() -> None:
            for transport in (self._to_viewer, self._to_server):
                if transport is not None:
                    transport.abort()
            await asyncio.sleep(0)  # in which they close

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def offer(self, sdp: str) -> str:
        """The viewer's offer, or its trickled fragment, that doesn't say where it can be reached: the server
        answers where it hears it."""
        return re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", sdp)

    def answer(self, sdp: str) -> str:
        """The server's answer with this in its place; ValueError where it has no candidate for that."""
        candidates = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host.*\r\n", sdp)
        if not candidates:
            raise ValueError("the answer has no host candidate by UDP")
        host, port = candidates[0]
        self.connect((host, int(port)))
        ours = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {self.port} typ host\r\n"
        return re.sub(r"(a=candidate.*\r\n)+", ours, sdp)

    @property
    def port(self) -> int:
        """Where it stands for the server."""
        return int(self._to_viewer.get_extra_info("sockname")[1])

    def connect(self, server: Address) -> None:
        if self._to_server is not None:
            self._to_server.abort()
        self._to_server = self._open(self._from_server, to=server)

    def _open(
        self, on_data: OnData, *, at: Address | None = None, to: Address | None = None
    ) -> asyncio.DatagramTransport:
        async def opened() -> asyncio.DatagramTransport:
            transport, _ = await self._loop.create_datagram_endpoint(
                lambda: _Side(on_data), local_addr=at, remote_addr=to
            )
            return transport

        return asyncio.run_coroutine_threadsafe(opened(), self._loop).result(10)

    def _lost(self) -> bool:
        return self._random.random() < self.loss

    def _from_viewer(self, data: bytes, sender: Address) -> None:
        self._viewer = sender
        if not self._lost() and self._to_server is not None:
            self._loop.call_later(self.rtt_s / 2, self._to_server.sendto, data)

    def _from_server(self, data: bytes, sender: Address) -> None:
        self.bytes_in += len(data)
        now_s = self._loop.time()
        sent_s = now_s
        if self.rate_bps:
            sent_s = max(self._free_s, now_s) + len(data) * 8 / self.rate_bps
            if sent_s - now_s > self.queue_s:
                return
            self._free_s = sent_s
        if not self._lost() and self._viewer is not None:
            self._loop.call_at(sent_s + self.rtt_s / 2, self._to_viewer.sendto, data, self._viewer)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, on_data: OnData) -> None:
        self._on_data = on_data

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._on_data(data, addr)
