"""What strangers try on a real service, while somebody watches: neither the picture nor /healthz shows it."""

import asyncio
import hashlib
import http.server
import re
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import httpx
import pytest
from aiortc.rtp import RTCP_PSFB_FIR, RtcpPsfbPacket
from aiortc.sdp import SessionDescription

from server.gateway.fanout.fanout import KEYFRAME_EVERY_S, KEYFRAMES_AT_ONCE
from server.gateway.webrtc.resend import RESERVE_BYTES, SHARE
from server.settings import Limits
from tests.peers.service import Service, free_port, running, until
from tests.peers.watcher import FPS, SOURCE, Watcher, watching
from tests.server.gateway.scripted_gateway import Gateway, ScriptedPlacement, loopback  # noqa: F401
from tests.server.gateway.slow_link import SlowViewer
from tests.server.gateway.test_strangers import FRAGMENT, SDP, an_offer, candidates

# The stranger's address; the limits of one address are not the watcher's, at 127.0.0.1.
STRANGER = "127.0.0.66"
ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
STORM_S = 4.0  # longer than a reserve lasts
LEAST_S = 1.5  # that each attack is watched
SHARE_SEEN = 0.9
LONGEST_GAP_S = 2.0
HEALTHZ_MEDIAN_S, HEALTHZ_WORST_S = (
    0.1,
    3.0,
)  # the worst is the machine's as well: these attacks took up to 13 s
MOST_MB = 40  # more of the gateway's memory than before
KEYFRAMES = 'livesr_keyframe_requests_total{stream="demo"}'

ADMIN, VIEWER, PUBLISHER = "admin-of-this-test", "viewer-of-this-test", "publisher-of-this-test"
# Nobody but who is tested asks for key frames: HLS would, were segments shorter than what comes by itself.
SETTINGS = """
[hls]
segment_s = 5.0
[sources]
hosts = ["127.0.0.1"]
[limits]
usable_share = 0
ice_timeout_s = 2.0
client_timeout_s = 2.0
[auth]
"""
TOKENS = ((ADMIN, "admin"), (VIEWER, "view:demo"), (PUBLISHER, "publish:*"))
KEY = "key-of-this-test"
STREAM = {"bitrate_bps": 1_000_000, "keyframe_interval_s": 5.0}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    service: Service  # asked by its admin
    watcher: Watcher
    stranger: httpx.Client  # from another address, without a token
    doors: dict[str, int]  # ports at which streams wait for publishers, by protocol

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """An attack that the watcher must not notice."""
        from_s = time.monotonic()
        yield
        seen = self.watcher.seen(from_s, max(time.monotonic(), from_s + LEAST_S))
        print(f"the watcher saw {seen}")
        assert seen.share >= SHARE_SEEN, seen
        assert seen.longest_gap_s < LONGEST_GAP_S, seen
        assert seen.healthz_median_s < HEALTHZ_MEDIAN_S, seen
        assert seen.healthz_worst_s < HEALTHZ_WORST_S, seen

    def connect(self, sent: bytes, port: int = 0) -> socket.socket:
        """A connection of the stranger's, on which this is sent."""
        port = port or int(self.service.url.rstrip("/").rpartition(":")[2])
        raw = socket.create_connection(("127.0.0.1", port), source_address=(STRANGER, 0))
        raw.sendall(sent)
        return raw

    def peak_mb(self) -> float:
        """The most memory that the gateway has ever held."""
        return _peak_kb(self.service.process.pid) / 1024

    def viewers(self) -> int:
        return self.service.show("demo")["viewers"]["whep"]

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", self.service.http.get("/metrics").text, re.M)
        return float(value)


def _peak_kb(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("stranger")
    settings = SETTINGS + "".join(
        f"[[auth.tokens]]\nname = '{token}'\nsha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n"
        f"scopes = ['{scope}']\n"
        for token, scope in TOKENS
    )
    doors = {protocol: free_port() for protocol in ("rtmp", "rtsp")}
    settings += "".join(
        f"[[streams]]\nid = '{protocol}'\nsource = '{protocol}://127.0.0.1:{port}/live/{KEY}?listen=1'\n"
        for protocol, port in doors.items()
    )
    transport = httpx.HTTPTransport(local_address=STRANGER, limits=httpx.Limits(max_connections=50))
    with ExitStack() as opened:
        service = opened.enter_context(running(folder, settings, ADMIN, base=""))
        opened.enter_context(service.stream("demo", SOURCE, **STREAM))
        service.wait_for("demo", "running")
        watcher = opened.enter_context(watching(service.url, "demo", VIEWER, folder))
        stranger = opened.enter_context(httpx.Client(base_url=service.url, transport=transport, timeout=30))
        yield Scene(service=service, watcher=watcher, stranger=stranger, doors=doors)


# Fault 1: sources


@pytest.fixture
def forbidden() -> Iterator[tuple[str, list[object]]]:
    """A service of the host's own network, and who called it."""
    callers: list[object] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            callers.append(self.client_address)

    with serving(socketserver.ThreadingTCPServer((FORBIDDEN, 0), Handler)) as port:
        yield f"{FORBIDDEN}:{port}", callers


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def website(pages: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """The stranger's own, at an address that may be called."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(http.server.ThreadingHTTPServer((ALLOWED, 0), Handler)) as port:
        yield f"http://{ALLOWED}:{port}"


def test_a_stranger_opens_nothing(scene: Scene, forbidden: tuple[str, list[object]], tmp_path: Path) -> None:
    where, callers = forbidden
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    port = free_port()
    sources = [
        str(secret),
        f"file://{secret}",
        "/no/such/file.mp4",
        f"http://{where}/",
        f"rtsp://{where}/",
        f"rtmp://{where}/live/x",
        f"http://2130706434:{where.rpartition(':')[2]}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        f"rtmp://0.0.0.0:{port}/live/x?listen=1",
        f"udp://0.0.0.0:{port}",
    ]
    with scene.unnoticed():
        answers = {}
        for source in sources:
            body = {"id": "mine", "source": source}
            assert scene.stranger.post("/api/streams", json=body).status_code == 401
            assert scene.stranger.post("/api/streams", json=body, headers=bearer(VIEWER)).status_code == 403
            answers[source] = scene.stranger.post("/api/streams", json=body, headers=bearer(PUBLISHER))
    assert {answer.status_code for answer in answers.values()} == {422}
    assert not callers
    there, missing = (answers[source].json()["detail"] for source in (str(secret), "/no/such/file.mp4"))
    assert there.replace(str(secret), "") == missing.replace("/no/such/file.mp4", ""), "no file oracle"


def test_a_strangers_server_leads_nowhere(scene: Scene, forbidden: tuple[str, list[object]]) -> None:
    where, callers = forbidden
    head = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:1\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="http://{where}/key"\n'
    pages = {
        "/redirect.mp4": (302, {"Location": f"http://{where}/a.mp4"}, b""),
        "/inner.m3u8": (200, {}, f"{head}#EXTINF:1,\nhttp://{where}/a.ts\n#EXT-X-ENDLIST\n".encode()),
        "/key.m3u8": (200, {}, f"{head}{key}#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n".encode()),
        "/a.ts": (200, {}, bytes(188 * 10)),
    }

    class Rtsp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                if line == b"\r\n":
                    moved = f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://{where}/a\r\n\r\n"
                    self.wfile.write(moved.encode())

    with (
        ExitStack() as opened,
        website(pages) as site,
        serving(socketserver.ThreadingTCPServer((ALLOWED, 0), Rtsp)) as port,
        scene.unnoticed(),
    ):
        sources = [f"{site}{path}" for path in pages if path != "/a.ts"] + [f"rtsp://{ALLOWED}:{port}/a"]
        for number, source in enumerate(sources):
            opened.enter_context(stream_of_the_publisher(scene, f"led-{number}", source))
        for number in range(len(sources)):
            reason = scene.service.wait_for(f"led-{number}", "reconnecting")["reason"]
            assert "sources.hosts" in reason or "another address" in reason
    assert not callers


@contextmanager
def stream_of_the_publisher(scene: Scene, name: str, source: str) -> Iterator[None]:
    answer = scene.stranger.post(
        "/api/streams", json={"id": name, "source": source}, headers=bearer(PUBLISHER)
    )
    assert answer.status_code == 201, answer.text
    try:
        yield
    finally:
        scene.service.http.delete(f"/api/streams/{name}")


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


# Fault 4: bodies, half requests, bursts, names


def endless(scene: Scene, head: bytes, block: bytes) -> int:
    """Sends a body of 400 MB, or as much of it as is let in; returns how much that was."""
    sent = 0
    with scene.connect(b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n") as raw:
        raw.settimeout(20)
        try:
            while sent < 400_000_000:
                raw.sendall(block)
                sent += len(block)
        except ConnectionError:
            pass
    return sent


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (b"Content-Length: 400000000\r\n", bytes(1 << 20)),
        (b"Transfer-Encoding: chunked\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 200_000),
    ],
    ids=["length", "chunks", "crumbs"],
)
def test_an_endless_body(scene: Scene, head: bytes, block: bytes) -> None:
    before = scene.peak_mb()
    with scene.unnoticed():
        sent = endless(scene, head, block)
    print(f"{sent / 1e6:.0f} MB sent, {scene.peak_mb() - before:.1f} MB more held")
    assert scene.peak_mb() - before < MOST_MB


def test_three_hundred_half_requests(scene: Scene) -> None:
    with ExitStack() as opened, scene.unnoticed():
        waiting = {
            opened.enter_context(scene.connect(b"POST /whep/demo HTTP/1.1\r\nHost: localhost\r\nContent-Le"))
            for _ in range(300)
        }

        def all_cut() -> bool:
            readable, _, _ = select.select(waiting, [], [], 0)
            waiting.difference_update(raw for raw in readable if _ended(raw))
            return not waiting

        until(all_cut, "every connection is cut")


def _ended(raw: socket.socket) -> bool:
    try:
        return not raw.recv(1)
    except ConnectionError:
        return True


async def test_two_hundred_offers_in_a_burst(scene: Scene) -> None:
    offer = await an_offer([])

    def post(_: int) -> httpx.Response:
        return scene.stranger.post("/whep/demo", content=offer, headers=SDP | bearer(VIEWER))

    with scene.unnoticed():
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(post, range(200)))
        elsewhere = scene.service.http.post("/whep/demo", content=offer, headers=SDP)
    assert elsewhere.status_code == 201, "a viewer from elsewhere gets a seat"
    statuses = [answer.status_code for answer in answers]
    # Those of the first who are given up while the burst lasts make room.
    assert 0 < statuses.count(201) <= 2 * Limits().max_pending_per_address
    assert set(statuses) == {201, 429}
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 429)
    until(lambda: scene.viewers() == 1, "the seats are free again")


def test_long_names_of_players(scene: Scene) -> None:
    def ask(length: int, number: int) -> int:
        headers = {"User-Agent": f"{number} " + "x" * length, **bearer(VIEWER)}
        return scene.stranger.get("/hls/demo/media.m3u8", headers=headers).status_code

    until(lambda: ask(10, 0) == 200, "there is a playlist")
    before = scene.peak_mb()
    with scene.unnoticed():
        longest = {ask(50_000, number) for number in range(100)}
        long = {ask(12_000, number) for number in range(1000)}
    assert longest == {431}
    assert 200 in long
    assert long <= {200, 429}
    assert scene.peak_mb() - before < MOST_MB


# Fault 5: other sites


@pytest.mark.parametrize("path", ["/api/streams", "/whep/demo", "/hls/demo/index.m3u8", "/", "/metrics"])
def test_a_site_of_the_visitors_browser(scene: Scene, path: str) -> None:
    rebound = scene.stranger.get(path, headers={"Host": "evil.example", **bearer(ADMIN)})
    assert rebound.status_code == 421
    origin = {"Origin": "https://evil.example", **bearer(ADMIN)}
    preflight = scene.stranger.options(path, headers={**origin, "Access-Control-Request-Method": "GET"})
    for answer in (rebound, scene.stranger.get(path, headers=origin), preflight):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


# Fault 6: push keys


def announce(path: str, port: int) -> bytes:
    sdp = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    head = f"ANNOUNCE rtsp://127.0.0.1:{port}/{path} RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n"
    return f"{head}Content-Length: {len(sdp)}\r\n\r\n".encode() + sdp


def test_keys_are_guessed_and_doors_kicked(scene: Scene) -> None:
    port = scene.doors["rtsp"]
    guesses = [f"other/{KEY}", "live/", "live", "", f"live/{KEY[:-1]}", f"live/{KEY}x", "live/../live/x"]
    guesses += [f"live/{number}" for number in range(40)]
    with scene.unnoticed():
        for path in guesses:
            with scene.connect(announce(path, port), port) as guessing:
                answer = guessing.recv(4096)
            assert not answer.startswith(b"RTSP/1.0 200"), path
        # Over the rate of an address not even the right one helps it.
        with scene.connect(announce(f"live/{KEY}", port), port) as guessing:
            assert not guessing.recv(4096).startswith(b"RTSP/1.0 200")
        for rubbish in (bytes(4000), b"\x03" + bytes(1536) * 2 + b"\xff" * 4000, b"GET / HTTP/1.1\r\n\r\n"):
            for door in scene.doors.values():
                scene.connect(rubbish, door).close()
        with ExitStack() as opened:  # and say nothing
            silent = [
                opened.enter_context(scene.connect(b"", door))
                for door in scene.doors.values()
                for _ in range(50)
            ]
            until(lambda: closed(silent), "those that say nothing are hung up on")
    for protocol in scene.doors:
        assert scene.service.show(protocol)["state"] == "reconnecting"
    assert KEY not in scene.service.log()


def closed(connections: list[socket.socket]) -> bool:
    """Whether the other side has ended each of them."""
    readable, _, _ = select.select(connections, [], [], 0)
    return len(readable) == len(connections)


# Fault 7: pictures


def test_a_picture_that_is_a_bomb(scene: Scene, tmp_path: Path) -> None:
    content = bomb(tmp_path / "bomb.mp4")
    assert len(content) < 500_000
    usual = {pid: _peak_kb(pid) for pid in scene.service.workers()}
    most_kb = 0

    def failed() -> str:
        nonlocal most_kb
        for pid in set(scene.service.workers()) - usual.keys():
            with suppress(FileNotFoundError, TypeError):  # it has just ended
                most_kb = max(most_kb, _peak_kb(pid))
        seen = scene.service.show("bomb")
        return seen["reason"] if seen["state"] == "failed" else ""

    with (
        website({"/bomb.mp4": (200, {}, content)}) as site,
        scene.unnoticed(),
        stream_of_the_publisher(scene, "bomb", f"{site}/bomb.mp4"),
    ):
        reason = until(failed, "it has failed")
    print(f"{most_kb / 1024:.0f} MB held by its worker, {max(usual.values()) / 1024:.0f} MB by another")
    assert "above the limit of 1920×1080" in reason
    assert 0 < most_kb / 1024 < max(usual.values()) / 1024 + MOST_MB


def bomb(path: Path) -> bytes:
    """PNG in MP4 that says 160×96 and has 10,000 × 10,000 pixels, 300 MB of them."""
    side = 10_000
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = side, side, "rgb24", Fraction(1)
    with av.open(str(path), "w") as out:
        video = out.add_stream("png", rate=1)
        video.width, video.height, video.pix_fmt = 160, 96, "rgb24"
        for packet in codec.encode(av.VideoFrame(side, side, "rgb24")):
            packet.stream = video
            out.mux(packet)
    return path.read_bytes()
