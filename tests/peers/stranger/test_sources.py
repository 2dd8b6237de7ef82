"""Strangers and their sources: files, addresses of the host, pictures that are bombs."""

import http.server
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.peers.service import until
from tests.peers.stranger.scene import ALLOWED, FORBIDDEN, MOST_MB, PUBLISHER, VIEWER, Scene, bearer, peak_kb
from tests.ports import free_port


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


def test_a_picture_that_is_a_bomb(scene: Scene, tmp_path: Path) -> None:
    content = bomb(tmp_path / "bomb.mp4")
    assert len(content) < 500_000
    usual = {pid: peak_kb(pid) for pid in scene.service.workers()}
    most_kb = 0

    def failed() -> str:
        nonlocal most_kb
        for pid in set(scene.service.workers()) - usual.keys():
            with suppress(FileNotFoundError, TypeError):  # it has just ended
                most_kb = max(most_kb, peak_kb(pid))
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
