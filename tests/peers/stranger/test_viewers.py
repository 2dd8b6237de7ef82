"""Strangers as viewers: candidates and feedback without end."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from aiortc.rtp import RTCP_PSFB_FIR, RtcpPsfbPacket
from aiortc.sdp import SessionDescription

from server.gateway.fanout.fanout import KEYFRAME_EVERY_S, KEYFRAMES_AT_ONCE
from server.gateway.webrtc.resend import RESERVE_BYTES, SHARE
from server.settings import Limits
from tests.peers.service import until
from tests.peers.stranger.scene import (
    KEYFRAMES,
    STORM_S,
    STRANGER,
    VIEWER,
    Scene,
    bearer,
)
from tests.peers.watcher import FPS
from tests.server.gateway.scripted_gateway import Gateway, loopback  # noqa: F401
from tests.server.gateway.scripted_worker import ScriptedPlacement
from tests.server.gateway.slow_link import SlowViewer
from tests.server.gateway.test_strangers import FRAGMENT, SDP, an_offer, candidates

# Fault 2: ICE candidates


class Sink:
    """Stands for a thousand machines of 127.0.0.0/8 that never asked for anything."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("0.0.0.0", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def packets(self) -> int:
        """How many came since it was last asked."""
        count = 0
        try:
            while self._socket.recv(2048):
                count += 1
        except BlockingIOError:
            return count

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def test_thousands_of_candidates(scene: Scene) -> None:
    bare = await an_offer([])
    with Sink() as sink, scene.unnoticed():
        offer = await an_offer(candidates(1000, sink.port))
        headers = SDP | bearer(VIEWER)
        assert scene.stranger.post("/whep/demo", content=offer, headers=SDP).status_code == 401
        answers = [scene.stranger.post("/whep/demo", content=o, headers=headers) for o in (offer, bare)]
        fragments = ["\r\n".join(candidates(1000, sink.port, 1 + 1000 * i)) for i in range(5)]
        for answer in answers:
            assert answer.status_code == 201, answer.text
            for fragment in fragments:
                scene.stranger.patch(
                    answer.headers["Location"], content=fragment, headers=FRAGMENT | bearer(VIEWER)
                )
        until(lambda: scene.viewers() == 1, "the two that never came are given up")
        # In 2 s each is tried at 0, 0.5 and 1.5 s.
        assert 0 < sink.packets() <= 2 * 3 * Limits().max_candidates


# Fault 3: feedback


@asynccontextmanager
async def hostile_viewer(scene: Scene) -> AsyncIterator["Hostile"]:
    transport = httpx.AsyncHTTPTransport(local_address=STRANGER)
    async with (
        httpx.AsyncClient(base_url=scene.service.url, transport=transport, headers=bearer(VIEWER)) as client,
        SlowViewer(Gateway(scene.service.url, client, ScriptedPlacement()), 1e9) as viewer,
    ):
        yield Hostile(viewer)


class Hostile:
    """A viewer with a valid session, behind a link that counts."""

    def __init__(self, viewer: SlowViewer) -> None:
        self._viewer = viewer
        self.link = viewer.link
        self._receiver = viewer.pc.getReceivers()[0]
        self._ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc

    async def usual_bytes_per_s(self) -> float:
        await self._viewer.sees(FPS)
        from_s, taken = time.monotonic(), self.link.bytes_in
        await self._viewer.sees(2 * FPS)
        return (self.link.bytes_in - taken) / (time.monotonic() - from_s)

    async def send(self, packet: bytes) -> None:
        await self._receiver.transport._send_rtp(packet)

    @property
    def _newest(self) -> int:
        return self._receiver._RTCRtpReceiver__nack_generator.max_seq

    def nack_of_everything(self) -> bytes:
        """1,292 bytes, 320 entries of 17 numbers each, among them every packet that may still be there."""
        entries = b"".join(
            struct.pack("!HH", (self._newest - 5_440 + 17 * i) & 0xFFFF, 0xFFFF) for i in range(320)
        )
        return struct.pack("!BBH", 0x81, 205, 322) + struct.pack("!II", 1, self._ssrc) + entries

    def nack_of_one(self) -> bytes:
        """The same packet 320 times."""
        entries = struct.pack("!HH", self._newest & 0xFFFF, 0) * 320
        return struct.pack("!BBH", 0x81, 205, 322) + struct.pack("!II", 1, self._ssrc) + entries

    def picture_loss(self) -> bytes:
        return struct.pack("!BBHII", 0x81, 206, 2, 1, self._ssrc)

    def full_intra_request(self) -> bytes:
        entry = struct.pack("!IB3x", self._ssrc, 1)
        return bytes(RtcpPsfbPacket(fmt=RTCP_PSFB_FIR, ssrc=1, media_ssrc=0, fci=entry))


@pytest.mark.parametrize(
    "kinds",
    [("nack_of_everything",), ("nack_of_one",), ("picture_loss", "full_intra_request")],
    ids=["nacks", "duplicate nacks", "pli and fir"],
)
async def test_a_storm_of_feedback(scene: Scene, kinds: tuple[str, ...]) -> None:
    async with hostile_viewer(scene) as hostile:
        usual = await hostile.usual_bytes_per_s()
        asked, taken = scene.metric(KEYFRAMES), hostile.link.bytes_in
        with scene.unnoticed():
            from_s = time.monotonic()
            while time.monotonic() - from_s < STORM_S:
                for kind in kinds:
                    packet = getattr(hostile, kind)()
                    for _ in range(50):
                        await hostile.send(packet)
                await asyncio.sleep(0.02)
            elapsed_s, caused = time.monotonic() - from_s, hostile.link.bytes_in - taken
        asked = scene.metric(KEYFRAMES) - asked
    print(
        f"{caused * 8 / elapsed_s / 1e6:.2f} Mbit/s sent, {usual * 8 / 1e6:.2f} usual; {asked:g} key frames"
    )
    # Twice what is usual, as key frames cost more than other frames.
    assert caused < RESERVE_BYTES + (2 + SHARE) * usual * elapsed_s
    assert asked <= KEYFRAMES_AT_ONCE + elapsed_s / KEYFRAME_EVERY_S + 1
