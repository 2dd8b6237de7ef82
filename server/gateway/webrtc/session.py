"""One client's transport: ICE, then DTLS, then what it is for, until either side ends it.

Built of aiortc's transports (its ORTC side) instead of its RTCPeerConnection: we only ever answer, media go
one way, and always over one transport.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import RTCDtlsTransport, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceCandidate, RTCIceParameters

from server.gateway.webrtc.candidates import RemoteCandidates
from server.gateway.webrtc.ice import Gatherer, Network
from server.gateway.webrtc.negotiate import Remote
from server.settings import Limits
from server.wire.logs import get_logger

log = get_logger(__name__)

DTLS_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Our side, as an answer says it."""

    ice: RTCIceParameters
    candidates: list[RTCIceCandidate]
    dtls: RTCDtlsParameters


class Session:
    """`open` gathers; from then on a task of its own connects, and does `work` while the client is connected.
    `close` ends it."""

    def __init__(
        self,
        remote: Remote,
        *,
        address: str,
        network: Network,
        limits: Limits,
        transport: Callable[[RTCIceTransport, Gatherer], RTCDtlsTransport],
        work: Callable[[], Sequence[Coroutine[Any, Any, None]]],
        on_closed: Callable[[], None],
    ) -> None:
        self.id = secrets.token_urlsafe(18)
        self.etag = f'"{secrets.token_hex(8)}"'
        self.address = address
        self._remote = remote
        self._limits = limits
        self._network = network
        self._work = work
        self._on_closed = on_closed
        self._remote_candidates = RemoteCandidates(limits.max_candidates)
        self._gatherer = network.gatherer(self.id[:6], max_candidates=limits.max_candidates)
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = transport(self._ice, self._gatherer)
        self._dtls._set_role(remote.dtls_role)
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Local:
        """Our side, with every candidate of ours."""
        await self._gatherer.gather()
        if not self._gatherer.getLocalCandidates():
            log.warning("no address for WebRTC clients", key="webrtc.host_addresses")
        await self.add_candidates(self._remote.ice_candidates, last=self._remote.ice_candidates_complete)
        self._task = asyncio.create_task(self._run())
        return Local(
            ice=self._gatherer.getLocalParameters(),
            candidates=list(self._network.announce(self._gatherer.getLocalCandidates())),
            dtls=self._dtls.getLocalParameters(),
        )

    @property
    def pending(self) -> bool:
        """Whether it has yet to connect."""
        return self._dtls.state != "connected"

    @property
    def remote_ufrag(self) -> str | None:
        return self._remote.ice.usernameFragment

    async def add_candidates(self, candidates: Sequence[RTCIceCandidate], *, last: bool) -> None:
        for candidate in self._remote_candidates.choose(candidates, loopback=self._gatherer.at_loopback):
            await self._ice.addRemoteCandidate(candidate)
        if last:
            await self._ice.addRemoteCandidate(None)

    def end(self) -> None:
        """The rest of it goes its own way."""
        self._ended.set()

    async def close(self) -> None:
        """Returns when everything of this client is released."""
        self._ended.set()
        if self._task is None:  # it never got as far as an answer
            await self._ice.stop()
            self._on_closed()
        elif self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            if await self._connect():
                tasks = [asyncio.create_task(work) for work in self._work()]
                await self._ended.wait()
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._dtls.stop()
            await self._ice.stop()
            self._dtls.remove_all_listeners()
            self._on_closed()

    async def _connect(self) -> bool:
        """Whether the client is connected; not, where it goes or stays unreachable."""
        await self._within(self._limits.ice_timeout_s, self._ice.start(self._remote.ice))
        if self._ice.state == "completed":
            await self._within(DTLS_TIMEOUT_S, self._dtls.start(self._remote.dtls))
        if self._dtls.state != "connected":
            if not self._ended.is_set():
                log.info(
                    "client not connected", viewer=self.id[:6], ice=self._ice.state, dtls=self._dtls.state
                )
            return False
        self._dtls.on("statechange", self._ended.set)  # from connected there is only the end
        return True

    async def _within(self, timeout_s: float, step: Coroutine[Any, Any, None]) -> None:
        """Takes the step, unless it takes too long or the client goes."""
        tasks = [asyncio.create_task(step), asyncio.create_task(self._ended.wait())]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
