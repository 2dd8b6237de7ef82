"""One WebRTC viewer: ICE, then DTLS, then a sender for each line, until either side ends it.

Built of aiortc's transports (its ORTC side) instead of its RTCPeerConnection: we only ever answer, only send,
and always over one transport.
"""

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from aiortc import RTCIceTransport
from aiortc.rtcicetransport import RTCIceCandidate

from server.gateway.fanout.fanout import Reader, ReaderClosed, SwitchingReader
from server.gateway.limits.refusals import Refusals
from server.gateway.webrtc.candidates import RemoteCandidates
from server.gateway.webrtc.choice import RenditionChoice
from server.gateway.webrtc.dtls import ViewerTransport
from server.gateway.webrtc.feedback import Arrivals
from server.gateway.webrtc.ice import Network
from server.gateway.webrtc.negotiate import Line, Offer, Sources, answer_sdp
from server.gateway.webrtc.path import Path
from server.gateway.webrtc.rtp import RtpFrame
from server.gateway.webrtc.rtp_sender import RtpSender
from server.settings import Limits
from server.wire.messages import Rendition

log = logging.getLogger(__name__)

DTLS_TIMEOUT_S = 10.0


class Media(Protocol):
    """What a viewer is sent, line by line of the offer; None is the sound."""

    renditions: tuple[Rendition, ...]  # to choose from, the largest first

    def join(self, rendition: Rendition | None) -> Reader[RtpFrame]: ...

    def bitrate_bps(self, rendition: Rendition) -> float:
        """What it takes of a network."""
        ...


class Peer:
    """`answer` gathers and answers; from then on a task of its own connects and sends. `close` ends it."""

    def __init__(
        self,
        offer: Offer,
        *,
        address: str,
        network: Network,
        limits: Limits,
        media: Media,
        refusals: Refusals,
        on_closed: Callable[["Peer"], None],
        fixed: bool = False,
    ) -> None:
        """`fixed`: the picture stays the rendition of the offer's line, whatever the network carries."""
        self.id = secrets.token_urlsafe(18)
        self.etag = f'"{secrets.token_hex(8)}"'
        self.address = address
        self._offer = offer
        self._media = media
        self._on_closed = on_closed
        self._limits = limits
        self._fixed = fixed
        self._remote_candidates = RemoteCandidates(limits.max_candidates)
        self._network = network
        self._gatherer = network.gatherer(self.id[:6], max_candidates=limits.max_candidates)
        self._ice = RTCIceTransport(self._gatherer)
        self.path = Path()
        self._choice: RenditionChoice | None = None
        self._dtls = ViewerTransport(
            self._ice,
            send=self._gatherer.send,
            on_arrivals=self._on_arrivals,
            on_refused=lambda: refusals.add("feedback", address),
        )
        self._dtls._set_role(offer.dtls_role)
        cname, origin = str(uuid.uuid4()), secrets.randbits(32)
        self._sources = {
            line.mid: Sources(
                ssrc=secrets.randbits(32),
                rtx_ssrc=secrets.randbits(32),
                cname=cname,
                timestamp_origin=origin,
            )
            for line in offer.lines
        }
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def answer(self) -> str:
        """The SDP answer, with every candidate of ours in it."""
        await self._gatherer.gather()
        if not self._gatherer.getLocalCandidates():
            log.warning("no address to offer to WebRTC viewers: set webrtc.host_addresses")
        await self.add_candidates(self._offer.ice_candidates, last=self._offer.ice_candidates_complete)
        self._task = asyncio.create_task(self._run())
        return answer_sdp(
            self._offer,
            session_id=secrets.randbits(62),
            ice=self._gatherer.getLocalParameters(),
            candidates=list(self._network.announce(self._gatherer.getLocalCandidates())),
            dtls=self._dtls.getLocalParameters(),
            sources=self._sources,
        )

    @property
    def pending(self) -> bool:
        """Whether it has yet to connect."""
        return self._dtls.state != "connected"

    @property
    def rendition(self) -> Rendition:
        """That of its picture; of the first one where it has two."""
        if self._choice is not None:
            return self._choice.rendition
        return next(line.rendition for line in self._offer.lines if line.rendition is not None)

    @property
    def reason(self) -> str:
        """Why its rendition was last changed; empty where it never was."""
        return self._choice.reason if self._choice is not None else ""

    @property
    def remote_ufrag(self) -> str | None:
        return self._offer.ice.usernameFragment

    async def add_candidates(self, candidates: Sequence[RTCIceCandidate], *, last: bool) -> None:
        for candidate in self._remote_candidates.choose(candidates, loopback=self._gatherer.at_loopback):
            await self._ice.addRemoteCandidate(candidate)
        if last:
            await self._ice.addRemoteCandidate(None)

    async def close(self) -> None:
        """Returns when everything of this viewer is released."""
        self._ended.set()
        if self._task is None:  # it never got as far as an answer
            await self._ice.stop()
            self._on_closed(self)
        elif self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        senders: list[asyncio.Task[None]] = []
        try:
            if await self._connect():
                senders = [asyncio.create_task(self._send(line)) for line in self._offer.lines]
                await self._ended.wait()
        finally:
            for sender in senders:
                sender.cancel()
            if senders:
                await asyncio.wait(senders)
            await self._dtls.stop()
            await self._ice.stop()
            self._dtls.remove_all_listeners()
            self._on_closed(self)

    async def _connect(self) -> bool:
        """Whether the viewer is connected; not, where it goes or stays unreachable."""
        await self._within(self._limits.ice_timeout_s, self._ice.start(self._offer.ice))
        if self._ice.state == "completed":
            await self._within(DTLS_TIMEOUT_S, self._dtls.start(self._offer.dtls))
        if self._dtls.state != "connected":
            if not self._ended.is_set():
                log.info(
                    "viewer %s: no connection (ICE %s, DTLS %s)",
                    self.id[:6],
                    self._ice.state,
                    self._dtls.state,
                )
            return False
        self._dtls.on("statechange", self._ended.set)  # from connected there is only the end
        return True

    async def _within(self, timeout_s: float, step: Coroutine[Any, Any, None]) -> None:
        """Takes the step, unless it takes too long or the viewer goes."""
        tasks = [asyncio.create_task(step), asyncio.create_task(self._ended.wait())]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _send(self, line: Line) -> None:
        reader = SwitchingReader(self._media.join(line.rendition))
        sender = RtpSender(
            line=line,
            sources=self._sources[line.mid],
            transport=self._dtls,
            reader=reader,
            path=self.path,
            on_feedback=self._look,
        )
        if line.rendition is not None and self._one_picture and not self._fixed:
            self._choice = self._choose(sender, reader)
        try:
            await sender.run()
        except (ConnectionError, ReaderClosed):
            self._ended.set()
        finally:
            if self._choice is not None:
                self._choice.close()

    @property
    def _one_picture(self) -> bool:
        """Not two renditions beside each other, each as it was asked for."""
        return sum(line.rendition is not None for line in self._offer.lines) == 1

    def _choose(self, sender: RtpSender, reader: SwitchingReader[RtpFrame]) -> RenditionChoice:
        def switch(rendition: Rendition, smaller: bool) -> None:
            log.info("viewer %s: %s, as %s", self.id[:6], rendition, choice.reason)
            # What the network doesn't carry only makes its queue longer.
            reader.switch(self._media.join(rendition), at_once=smaller)

        choice = RenditionChoice(
            self._media.renditions,
            self.path,
            bitrate_bps=self._media.bitrate_bps,
            switch=switch,
            pad=sender.pad,
            clock=time.monotonic,
        )
        return choice

    def _on_arrivals(self, arrivals: Arrivals) -> None:
        self.path.heard(arrivals, time.monotonic())
        self._look()

    def _look(self) -> None:
        if self._choice is not None:
            self._choice.look()
