"""WebRTC viewers of several streams in one process: prints each frame's stream, number and arrival."""

import asyncio
import sys
import time

import aioice.ice
import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription

from server.worker.ingest.synthetic import read_frame_number


async def _view(http: httpx.AsyncClient, stream: str) -> None:
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    await peer.setLocalDescription(await peer.createOffer())
    answer = await http.post(
        f"whep/{stream}", content=peer.localDescription.sdp, headers={"Content-Type": "application/sdp"}
    )
    answer.raise_for_status()
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    while True:
        frame = await receiver.track.recv()
        number = read_frame_number(frame.to_ndarray(format="gray"), scale=2)
        if number is not None:
            print(stream, number, time.monotonic(), flush=True)


async def _main(url: str, streams: list[str]) -> None:
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    async with httpx.AsyncClient(base_url=url, timeout=60, follow_redirects=True) as http:
        await asyncio.gather(*(_view(http, stream) for stream in streams))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
