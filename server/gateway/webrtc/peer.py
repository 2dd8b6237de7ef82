"""One WebRTC viewer: a sender for each line, and what its network carries."""

import asyncio
import contextlib
import random
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from aiortc import RTCIceTransport

from server.gateway.fanout.fanout import Reader, ReaderClosed, SwitchingReader
from server.gateway.limits.refusals import Refusals
from server.gateway.webrtc.choice import RenditionChoice
from server.gateway.webrtc.dtls import ViewerTransport
from server.gateway.webrtc.feedback import Arrivals
from server.gateway.webrtc.ice import Gatherer, Network
from server.gateway.webrtc.negotiate import Line, Offer, Sources, answer_sdp
from server.gateway.webrtc.pacer import Pacer
from server.gateway.webrtc.path import Path
from server.gateway.webrtc.rtp import RtpFrame
from server.gateway.webrtc.rtp_sender import RtpSender
from server.gateway.webrtc.session import Session
from server.settings import Limits
from server.wire.logs import get_logger
from server.wire.messages import Rendition
from server.wire.renditions import in_vp8, is_vp8, picture_of

log = get_logger(__name__)


class Media(Protocol):
    """What a viewer is sent, line by line of the offer; None is the sound."""

    pacer: Pacer
    renditions: tuple[Rendition, ...]  # to choose from, the largest first; each is there in VP8, too

    def join(self, rendition: Rendition | None) -> Reader[RtpFrame]: ...

    def bitrate_bps(self, rendition: Rendition) -> float:
        """What it takes of a network."""
        ...


class Peer:
    """`answer` gathers and answers; from then on its session connects and sends."""

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
        self._offer = offer
        self._fixed = fixed
        self._media = media
        self.path = Path()
        self._choice: RenditionChoice | None = None
        self._senders: list[RtpSender] = []
        self._dtls: ViewerTransport

        def transport(ice: RTCIceTransport, gatherer: Gatherer) -> ViewerTransport:
            self._dtls = ViewerTransport(
                ice,
                network.certificates.current,
                send=gatherer.send,
                on_arrivals=self._on_arrivals,
                on_refused=lambda: refusals.add("feedback", address),
            )
            gatherer.hear(self._dtls.receive)
            return self._dtls

        self.session = Session(
            offer.remote,
            address=address,
            network=network,
            limits=limits,
            transport=transport,
            work=lambda: [*(self._send(line) for line in offer.lines), self._report()],
            on_closed=lambda: on_closed(self),
        )
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

    async def answer(self) -> str:
        """The SDP answer, with every candidate of ours in it."""
        local = await self.session.open()
        return answer_sdp(
            self._offer,
            session_id=secrets.randbits(62),
            ice=local.ice,
            candidates=local.candidates,
            dtls=local.dtls,
            sources=self._sources,
        )

    @property
    def rendition(self) -> Rendition:
        """That of its picture; of the first one where it has two."""
        if self._choice is not None:
            return picture_of(self._choice.rendition)
        return next(picture_of(line.rendition) for line in self._offer.lines if line.rendition is not None)

    @property
    def reason(self) -> str:
        """Why its rendition was last changed; empty where it never was."""
        return self._choice.reason if self._choice is not None else ""

    async def _send(self, line: Line) -> None:
        reader = SwitchingReader(self._media.join(line.rendition))
        sender = RtpSender(
            line=line,
            sources=self._sources[line.mid],
            transport=self._dtls,
            reader=reader,
            path=self.path,
            pacer=self._media.pacer,
            on_feedback=self._look,
        )
        self._senders.append(sender)
        if line.rendition is not None and self._one_picture and not self._fixed:
            self._choice = self._choose(sender, reader, vp8=is_vp8(line.rendition))
        try:
            await sender.run()
        except (ConnectionError, ReaderClosed):
            self.session.end()
        finally:
            if self._choice is not None:
                self._choice.close()

    async def _report(self) -> None:
        """Tells the viewer of all lines together."""
        while True:
            await asyncio.sleep(0.5 + random.random())
            with contextlib.suppress(ConnectionError):  # the sending of frames finds out as well
                self._dtls.send_report(b"".join(sender.report() for sender in self._senders))

    @property
    def _one_picture(self) -> bool:
        """Not two renditions beside each other, each as it was asked for."""
        return sum(line.rendition is not None for line in self._offer.lines) == 1

    def _choose(self, sender: RtpSender, reader: SwitchingReader[RtpFrame], *, vp8: bool) -> RenditionChoice:
        def switch(rendition: Rendition, smaller: bool) -> None:
            log.info(
                "rendition changed", viewer=self.session.id[:6], rendition=rendition, reason=choice.reason
            )
            # What the network doesn't carry only makes its queue longer.
            reader.switch(self._media.join(rendition), at_once=smaller)

        renditions = self._media.renditions
        choice = RenditionChoice(
            [in_vp8(name) for name in renditions] if vp8 else renditions,
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
