"""An aiortc viewer sees what the engine made: the decoded picture against the engine's own output."""

import asyncio

import aioice.ice
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from av import VideoFrame

from engine.frame import YuvFrame
from engine.load import load_engine
from server.wire.synthetic import parse_synthetic
from server.worker.ingest.synthetic import read_frame_number, synthetic_frame
from tests.peers.service import TIMEOUT_S, Service

SOURCE = "synthetic:?size=160x90&fps=12"
FRAMES = 24


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves out 127.0.0.1 by itself."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


async def watch(service: Service, stream: str, count: int) -> list[VideoFrame]:
    """The first frames that a viewer decodes."""
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    await peer.setLocalDescription(await peer.createOffer())
    answer = await asyncio.to_thread(
        service.http.post,
        f"/whep/{stream}",
        content=peer.localDescription.sdp,
        headers={"content-type": "application/sdp"},
    )
    assert answer.status_code == 201, answer.text
    try:
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        async with asyncio.timeout(TIMEOUT_S):
            return [await receiver.track.recv() for _ in range(count)]
    finally:
        await asyncio.to_thread(service.http.delete, answer.headers["location"])
        await peer.close()


def planes(frame: VideoFrame) -> YuvFrame:
    flat = frame.to_ndarray(format="yuv420p")  # (h * 3 / 2, w)
    h, w = frame.height, frame.width
    chroma = flat[h:].reshape(2, h // 2, w // 2)
    return YuvFrame(y=flat[:h], u=chroma[0], v=chroma[1])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    mse = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


async def test_the_viewer_sees_the_engines_own_output(service: Service) -> None:
    with service.stream("exact", SOURCE, bitrate_bps=8_000_000):
        model = (await asyncio.to_thread(service.wait_for, "exact", "running"))["model"]
        frames = await watch(service, "exact", FRAMES)

    form = parse_synthetic(SOURCE)
    lane = load_engine(model, width=form.width, height=form.height).lane()
    numbers = []
    for frame in frames:
        seen = planes(frame)
        number = read_frame_number(seen.y, scale=2)
        assert number is not None, "the frame's number can be read in its picture"
        numbers.append(number)
        lane.submit(synthetic_frame(number, form))
        own = lane.wait()
        for plane in ("y", "u", "v"):
            assert psnr(getattr(seen, plane), getattr(own, plane)) > 32, f"{plane} of frame {number}"
    assert numbers == sorted(set(numbers)), "no frame twice, none out of order"
