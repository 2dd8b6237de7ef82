"""A small WHEP server of its own make: what the load test must judge rightly is known here to the packet.

Run as a program: prints its address, serves stream `pattern` at 25 frames/s with a key frame a second, and
`refused`, which lets nobody in. With `--lose N` every Nth RTP packet after the first picture never arrives;
with `--no-media` the answer is right but no packet follows.
"""

import argparse
import asyncio
import collections
import itertools
import socket
import time
from fractions import Fraction

import aioice.ice
import av
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCDtlsTransport
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import Gauge, make_asgi_app

FPS = 25
CLOCK = Fraction(1, 90_000)
LOST: set[int] = set()


def one_gop() -> list[bytes]:
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 160, 120, "yuv420p"
    codec.framerate, codec.time_base = Fraction(FPS), Fraction(1, FPS)
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": f"keyint={FPS}"}
    frame = av.VideoFrame(160, 120, "yuv420p")
    packets = []
    for i in range(FPS):
        for plane in frame.planes:
            plane.update(bytes((i * 7 + n) % 251 for n in range(plane.buffer_size)))
        frame.pts = i
        packets += [bytes(p) for p in codec.encode(frame)]
    return packets


class Pattern(MediaStreamTrack):
    kind = "video"

    def __init__(self, gop: list[bytes]) -> None:
        super().__init__()
        self._frames = enumerate(itertools.cycle(gop))
        self._start_s = time.monotonic()

    async def recv(self) -> av.Packet:
        number, data = next(self._frames)
        await asyncio.sleep(max(0.0, self._start_s + number / FPS - time.monotonic()))
        packet = av.Packet(data)
        packet.pts, packet.time_base = number * 90_000 // FPS, CLOCK
        return packet


def application(gop: list[bytes], media: bool) -> FastAPI:
    app = FastAPI()
    sessions: dict[str, RTCPeerConnection] = {}
    streams = {name: {"id": name, "state": "running"} for name in ("pattern", "refused")}
    workers = Gauge("livesr_worker_resident_memory_bytes", "", ["stream"])
    workers.labels(stream="pattern").set(50e6)
    app.mount("/metrics", make_asgi_app())

    @app.get("/api/streams")
    def list_streams() -> list[dict[str, str]]:
        return list(streams.values())

    @app.get("/api/streams/{stream}")
    def show(stream: str) -> dict[str, str]:
        if stream not in streams:
            raise HTTPException(404, f"no stream {stream!r}")
        return streams[stream]

    @app.get("/sessions")
    def count() -> int:
        return len(sessions)

    @app.get("/lost")
    def count_lost() -> int:
        return len(LOST)

    @app.post("/whep/refused")
    def refuse() -> None:
        raise HTTPException(503, "full")

    @app.post("/whep/pattern")
    async def whep(request: Request) -> Response:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        offer = RTCSessionDescription(sdp=(await request.body()).decode(), type="offer")
        await peer.setRemoteDescription(offer)
        if media:
            peer.addTrack(Pattern(gop))
        await peer.setLocalDescription(await peer.createAnswer())
        key = f"session{len(sessions)}-{time.monotonic_ns()}"
        sessions[key] = peer
        headers = {"Location": f"/whep/pattern/{key}", "ETag": '"1"'}
        return Response(peer.localDescription.sdp, 201, headers, "application/sdp")

    @app.delete("/whep/pattern/{key}")
    async def leave(key: str) -> None:
        await sessions.pop(key).close()

    return app


def lose_every(nth: int) -> None:
    """Each of these packets is lost as often as it is sent: no retransmission brings it."""
    send = RTCDtlsTransport._send_rtp
    sent: collections.Counter[RTCDtlsTransport] = collections.Counter()

    async def lossy(self: RTCDtlsTransport, data: bytes) -> None:
        is_rtcp = 192 <= data[1] <= 223
        sent[self] += not is_rtcp
        number = int.from_bytes(data[2:4])
        if is_rtcp or sent[self] < FPS or number % nth:
            await send(self, data)
        else:
            LOST.add(number)

    RTCDtlsTransport._send_rtp = lossy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lose", type=int)
    parser.add_argument("--no-media", action="store_true")
    args = parser.parse_args()
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    if args.lose:
        lose_every(args.lose)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    app = application(one_gop(), not args.no_media)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
