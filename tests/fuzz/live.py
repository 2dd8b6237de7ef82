"""What is fuzzed in a running service: each by its count of inputs and its seed, and how they were taken."""

import asyncio
import contextlib
import http.server
import queue
import random
import re
import socket
import struct
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import aioice.ice
import httpx
import imageio_ffmpeg
import pylibsrtp
from aiortc.sdp import SessionDescription

from tests.fuzz.health import unharmed
from tests.fuzz.mutate import mutated
from tests.fuzz.openapi import fuzz_openapi
from tests.fuzz.service import STREAM, TOKEN
from tests.fuzz.targets import FRAGMENT, NACK, PLI, REPORT
from tests.peers.service import Service
from tests.server.clips import write_clip
from tests.server.gateway.scripted_gateway import Gateway, Viewer
from tests.server.gateway.scripted_worker import ScriptedPlacement
from tests.server.gateway.test_negotiate import CHROMIUM_OFFER

SDP, TRICKLE = {"Content-Type": "application/sdp"}, {"Content-Type": "application/trickle-ice-sdpfrag"}
FRAGMENTS_OF_AN_OFFER = 4
PACKETS_OF_A_SESSION = 400  # what is read of one viewer's feedback has a limit
SOURCES_AT_ONCE = 4
ASKED_AT_ONCE, ASK_AGAIN_S = 12, 5.0


def fuzz_offers(service: Service, count: int, number: int) -> Counter[str]:
    """Every offer that is taken gets fragments, too; every second of these viewers says that it leaves."""
    rng, outcomes = random.Random(number), Counter[str]()
    offer = CHROMIUM_OFFER.replace("\n", "\r\n").encode()
    while outcomes.total() < count:
        few = rng.random() < 0.2  # most offers with several changes are refused
        answer = service.http.post(
            f"/whep/{STREAM}", content=offer if few else mutated(offer, [offer], rng), headers=SDP
        )
        outcomes[f"offer {answer.status_code}"] += 1
        _check(answer)
        if answer.status_code != 201:
            continue
        where = answer.headers["Location"]
        for _ in range(FRAGMENTS_OF_AN_OFFER):
            patched = service.http.patch(where, content=mutated(FRAGMENT, [FRAGMENT], rng), headers=TRICKLE)
            outcomes[f"fragment {patched.status_code}"] += 1
            _check(patched)
        if rng.random() < 0.5:
            service.http.delete(where)
    return outcomes


def _check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"


def fuzz_feedback(service: Service, count: int, number: int) -> Counter[str]:
    """Of a viewer: under its keys, and as anybody can send it."""
    return asyncio.run(_feedback(service, count, random.Random(number)))


async def _feedback(service: Service, count: int, rng: random.Random) -> Counter[str]:
    outcomes = Counter[str]()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with _on_loopback(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
        anybody.setblocking(False)
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=30) as client:
            gateway = Gateway(service.url, client, ScriptedPlacement())
            while outcomes.total() < count:
                async with Viewer(gateway) as viewer:
                    await viewer.sees(1)
                    for _ in range(min(PACKETS_OF_A_SESSION, count - outcomes.total())):
                        outcomes[await _send(viewer, anybody, rng)] += 1
                    with contextlib.suppress(httpx.HTTPStatusError):  # it may have said goodbye
                        (await client.delete(viewer.location)).raise_for_status()
            async with Viewer(gateway) as viewer:
                await viewer.sees(3)
                await client.delete(viewer.location)
    return outcomes


async def _send(viewer: Viewer, anybody: socket.socket, rng: random.Random) -> str:
    ssrc = SessionDescription.parse(viewer.response.text).media[0].ssrc[0].ssrc
    seeds = [packet[:8] + struct.pack("!I", ssrc) + packet[12:] for packet in (NACK, PLI, REPORT)]
    packet = mutated(rng.choice(seeds), seeds, rng)
    await asyncio.sleep(0)
    if rng.random() < 0.3:
        port = int(re.search(r"127\.0\.0\.1 (\d+) typ host", viewer.response.text)[1])
        anybody.sendto(packet[:1400], ("127.0.0.1", port))
        return "anybody's"
    try:
        await viewer.pc.getReceivers()[0].transport._send_rtp(packet)
    except (pylibsrtp.Error, IndexError, ValueError):  # nothing that could be encrypted
        return "not sent"
    except ConnectionError:
        return "over"
    return "sent"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    found = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = found


def fuzz_sources(service: Service, count: int, number: int) -> Counter[str]:
    """A web server that never gives the same twice: playlists, transport streams, FLV, raw H.264 and MP4.

    A tenth of `count`, as a source asks again no sooner than it is called again.
    """
    count //= 10
    rng, outcomes = random.Random(number), Counter[str]()
    seeds, asked = _clips(), queue.SimpleQueue[str]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = self.path.rpartition(".")[2]
            kind = kind if kind in seeds else "ts"  # a mutated playlist may lead anywhere
            body = mutated(rng.choice(seeds[kind]), [seed for kinds in seeds.values() for seed in kinds], rng)
            asked.put(kind)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,)).start()
        try:
            turn = 0
            while outcomes.total() < count:
                with contextlib.ExitStack() as streams:
                    for kind in [
                        list(seeds)[(turn + place) % len(seeds)] for place in range(SOURCES_AT_ONCE)
                    ]:
                        source = f"http://127.0.0.1:{web.server_address[1]}/a.{kind}"
                        streams.enter_context(service.stream(f"fuzzed-{kind}", source, source_timeout_s=1.0))
                    turn += 1
                    # Those that are taken for good, or fail for good, ask no more: the next streams do.
                    with contextlib.suppress(queue.Empty):
                        for _ in range(ASKED_AT_ONCE):
                            outcomes[asked.get(timeout=ASK_AGAIN_S)] += 1
        finally:
            web.shutdown()
    return outcomes


def _clips() -> dict[str, Sequence[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", width=160, height=90, frames=10, audio="aac")
        found = {"mp4": [clip.read_bytes()]}
        for kind in ("ts", "flv", "h264"):
            out = clip.with_suffix(f".{kind}")
            words = ["-loglevel", "error", "-i", str(clip), "-c", "copy", str(out)]
            subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words], check=True)
            found[kind] = [out.read_bytes()]
    head = b"#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:1\n"
    key = b'#EXT-X-KEY:METHOD=AES-128,URI="key.ts",IV=0x00000000000000000000000000000001\n'
    segments = b"#EXTINF:0.4,\na.ts\n#EXT-X-BYTERANGE:1880@0\n#EXTINF:0.4,\nb.ts\n#EXT-X-ENDLIST\n"
    master = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\nb.m3u8\n"
    return {**found, "m3u8": [head + segments, head + key + segments, master]}


def _unharmed(
    fuzz: Callable[[Service, int, int], Counter[str]],
) -> Callable[[Service, int, int], Counter[str]]:
    def run(service: Service, count: int, number: int) -> Counter[str]:
        with unharmed(service):
            return fuzz(service, count, number)

    return run


LIVE = {
    "openapi": _unharmed(fuzz_openapi),
    "offers": _unharmed(fuzz_offers),
    "feedback": _unharmed(fuzz_feedback),
    "sources": _unharmed(fuzz_sources),
}
