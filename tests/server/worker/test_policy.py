"""Sources of strangers: a server that is allowed can't make us call one that isn't."""

import http.server
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from server.wire.source_policy import SourcePolicy
from server.worker.ingest.dial import Dialer, Refused
from server.worker.ingest.open import open_source
from server.worker.ingest.relay import RedirectGuard
from server.worker.ingest.source import Source, SourceError
from tests.ports import free_port
from tests.server.clips import write_clip

ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
POLICY = SourcePolicy(schemes=("rtsp", "rtmp", "http"), hosts=(ALLOWED,), folders=(), listen_ports=())

CLOSED = SourcePolicy(schemes=("http",), hosts=(), folders=(), listen_ports=())


def opened(url: str, policy: SourcePolicy | None = POLICY) -> Source:
    return open_source(
        url, policy=policy, loop=False, max_size=(1920, 1080), timeout_s=5, stop=threading.Event()
    )


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def forbidden() -> Iterator[tuple[str, list]]:
    """Where nobody may call, and who has."""
    callers: list = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            callers.append(self.client_address)

    with serving(socketserver.ThreadingTCPServer((FORBIDDEN, 0), Handler)) as port:
        yield f"{FORBIDDEN}:{port}", callers


@pytest.fixture
def web() -> Iterator[Callable[..., str]]:
    """Serves what it is told: path → (status, headers, body)."""
    running = []

    def serve(pages: dict[str, tuple[int, dict[str, str], bytes]]) -> str:
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

        context = serving(http.server.ThreadingHTTPServer((ALLOWED, 0), Handler))
        running.append(context)
        return f"http://{ALLOWED}:{context.__enter__()}"

    yield serve
    for context in running:
        context.__exit__(None, None, None)


def read_all(source: Source) -> str:
    """Reads until the source ends; returns why."""
    try:
        source.open()
        for _ in source.arrivals():
            pass
    except SourceError as exc:
        return str(exc)
    finally:
        source.close()
    return "the end"


def playlist(*urls: str, more: str = "") -> tuple[int, dict[str, str], bytes]:
    lines = "".join(f"#EXTINF:1,\n{url}\n" for url in urls)
    text = f"#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:1\n{more}{lines}#EXT-X-ENDLIST\n"
    return 200, {"Content-Type": "application/vnd.apple.mpegurl"}, text.encode()


def test_a_playlist_does_not_lead_to_a_forbidden_address(web, forbidden):
    where, callers = forbidden
    address = web({"/live.m3u8": playlist(f"http://{where}/a.ts")})
    assert "sources.hosts" in read_all(opened(f"{address}/live.m3u8"))
    assert not callers


def test_neither_does_its_key(web, forbidden, tmp_path):
    where, callers = forbidden
    clip = write_clip(tmp_path / "a.ts", frames=5)
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="http://{where}/key"\n'
    address = web({"/live.m3u8": playlist("a.ts", more=key), "/a.ts": (200, {}, clip.read_bytes())})
    assert "sources.hosts" in read_all(opened(f"{address}/live.m3u8"))
    assert not callers


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\x85.ts",
        b"http://[::1/a.ts",
        b'#EXT-X-KEY:METHOD=AES-128,URI="key",IV=0x01\n#EXTINF:1,\na.ts',
        b'#EXT-X-KEY:METHOD=AES-128,URI="http://[::1/key"\n#EXTINF:1,\na.ts',
        b'#EXT-X-KEY:METHOD=AES-128,URI="\xff\x85"\n#EXTINF:1,\na.ts',
    ],
)
def test_a_playlist_of_nonsense_is_a_source_that_is_lost(web, line):
    text = b"#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s\n#EXT-X-ENDLIST\n" % line
    pages = {"/live.m3u8": (200, {}, text), "/key": (200, {}, b"short"), "/a.ts": (200, {}, bytes(188))}
    assert read_all(opened(f"{web(pages)}/live.m3u8")) != "the end"


def test_metadata_that_is_no_text_is_no_hindrance(web, tmp_path):
    clip = write_clip(tmp_path / "a.ts", frames=10)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "b.flv"), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        out.metadata["title"] = "PLACEHOLDER"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
    content = (tmp_path / "b.flv").read_bytes().replace(b"PLACEHOLDER", b"Caf\xe9 \xff\x85\x85\x85\x85\x85")
    (tmp_path / "b.flv").write_bytes(content)
    assert count_pictures(opened(f"{web({'/b.flv': (200, {}, content)})}/b.flv"), 10) == 10
    assert count_pictures(opened(str(tmp_path / "b.flv"), None), 10) == 10


@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
def test_a_redirect_does_not_lead_to_a_forbidden_address(web, forbidden, suffix):
    where, callers = forbidden
    address = web({f"/a.{suffix}": (302, {"Location": f"http://{where}/a.{suffix}"}, b"")})
    assert "sources.hosts" in read_all(opened(f"{address}/a.{suffix}"))
    assert not callers


@pytest.mark.parametrize(
    "content", [b"ffconcat version 1.0\nfile 'http://%s/a.mp4'\n", b"v=0\nc=IN IP4 %s\n"]
)
def test_no_other_format_opens_connections_by_itself(web, forbidden, content):
    where, callers = forbidden
    address = web({"/a": (200, {}, content % where.encode())})
    assert read_all(opened(f"{address}/a")) != "the end"
    assert not callers


@pytest.mark.parametrize(
    ("location", "reason"),
    [("file:///etc/passwd", "302"), ("rtsp://127.0.0.1/a", "302"), ("ftp://127.0.0.1/a", "not of the web")],
)
def test_a_redirect_stays_in_the_web(web, location, reason):
    address = web({"/a.mp4": (302, {"Location": location}, b"")})
    assert reason in read_all(opened(f"{address}/a.mp4", policy=None))


def test_an_rtsp_server_does_not_send_us_to_a_forbidden_address(forbidden):
    where, callers = forbidden

    class Sends(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                if line == b"\r\n":
                    answer = f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://{where}/a\r\n\r\n"
                    self.wfile.write(answer.encode())

    with serving(socketserver.ThreadingTCPServer((ALLOWED, 0), Sends)) as port:
        assert "another address" in read_all(opened(f"rtsp://{ALLOWED}:{port}/a"))
    assert not callers


@pytest.mark.parametrize(
    "answer",
    [b"RTSP/1.0 301 Moved\r\n", b"RT\rSP/1.0 302 Moved\r\n", b"RTSP/1.0 +302 x\r\n", b"RTSP/1.0  302 x\r\n"],
)
def test_a_redirect_is_seen_however_it_comes(answer):
    guard = RedirectGuard()
    whole = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n" + answer
    with pytest.raises(Refused):
        b"".join(guard.from_server(bytes([byte])) for byte in whole)


def test_other_answers_pass_whole():
    answers = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\nRTSP/1.0 401 Unauthorized\r\n\r\nv=0\r\n"
    guard = RedirectGuard()
    assert b"".join(guard.from_server(bytes([byte])) for byte in answers) == answers
    guard.from_client(b"PLAY rtsp://127.0.0.1/ RTSP/1.0\r\n")
    assert guard.from_server(b"$\x00RTSP/\r3") == b"$\x00RTSP/\r3"


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid", FORBIDDEN])
def test_one_sentence_for_the_unknown_and_the_forbidden(host):
    with pytest.raises(Refused, match=f"^{host} has no address that sources.hosts allows$"):
        Dialer(CLOSED, timeout_s=1).dial(host, 80)


def test_one_sentence_for_files_that_are_there_and_that_are_not(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=2)
    folder = tmp_path / "clips"
    folder.mkdir()
    policy = SourcePolicy(schemes=("file",), hosts=(), folders=(str(folder),), listen_ports=())
    (folder / "there.mp4").symlink_to(path)
    (folder / "missing.mp4").symlink_to(tmp_path / "none.mp4")
    reasons = {
        read_all(opened(str(folder / f"{n}.mp4"), policy)).replace(n, "") for n in ("there", "missing")
    }
    assert len(reasons) == 1


def count_pictures(source: Source, least: int) -> int:
    """Pictures read, once they are that many or the source has ended."""
    count = 0
    source.open()
    try:
        for arrival in source.arrivals():
            count += arrival.video and arrival.packet.size > 0
            if count >= least:
                break
    except SourceError:
        pass
    finally:
        source.close()
    return count


@pytest.fixture
def ffmpeg() -> Iterator[Callable[..., subprocess.Popen]]:
    started = []

    def run(*arguments: str) -> subprocess.Popen:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def pages_of(folder: Path) -> dict[str, tuple[int, dict[str, str], bytes]]:
    return {f"/{path.name}": (200, {}, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("how", ["plain", "encrypted", "ranges", "fragments"])
def test_hls_of_every_kind_plays(web, ffmpeg, tmp_path, how):
    clip = write_clip(tmp_path / "clip.mp4", frames=50)
    out = tmp_path / "hls"
    out.mkdir()
    options = {
        "plain": [],
        "encrypted": ["-hls_enc", "1", "-hls_enc_key", "0123456789abcdef", "-hls_enc_key_url", ""],
        "ranges": ["-hls_flags", "single_file"],
        "fragments": ["-hls_segment_type", "fmp4"],
    }[how]
    if how == "encrypted":
        (out / "key").write_bytes(b"0123456789abcdef")
        (tmp_path / "info").write_text(f"key\n{out / 'key'}\n")
        options = ["-hls_key_info_file", str(tmp_path / "info")]
    hls = ["-f", "hls", "-hls_time", "0.4", "-hls_list_size", "0", *options, str(out / "a.m3u8")]
    assert ffmpeg("-i", str(clip), "-c", "copy", *hls).wait(30) == 0
    address = web(pages_of(out))
    assert count_pictures(opened(f"{address}/a.m3u8"), 100) == 50


def test_a_redirected_playlist_is_relative_to_where_it_lies(web, tmp_path):
    clip = write_clip(tmp_path / "a.ts", frames=10).read_bytes()
    address = web(
        {
            "/live.m3u8": (302, {"Location": "/deep/live.m3u8"}, b""),
            "/deep/live.m3u8": playlist("a.ts"),
            "/deep/a.ts": (200, {}, clip),
        }
    )
    assert count_pictures(opened(f"{address}/live.m3u8"), 100) == 10


def test_user_and_password_are_sent_when_asked_for(web, tmp_path):
    clip = write_clip(tmp_path / "a.ts", frames=10).read_bytes()
    seen = []

    class Asks(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200 if seen[-1] == "Basic dXNlcjpwQHNz" else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            if seen[-1] is not None:
                self.wfile.write(clip)

        def log_message(self, *_: object) -> None:
            pass

    with serving(http.server.ThreadingHTTPServer((ALLOWED, 0), Asks)) as port:
        assert count_pictures(opened(f"http://user:p%40ss@{ALLOWED}:{port}/a.ts"), 100) == 10
    assert seen[0] is None


def test_rtmp_is_pulled_through_the_relay(ffmpeg, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=250)
    url = f"rtmp://{ALLOWED}:{free_port()}/live/key"
    server = ffmpeg("-re", "-i", str(clip), "-c", "copy", "-f", "flv", "-listen", "1", url)
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            assert count_pictures(opened(url), 20) == 20
            return
        except SourceError:  # ffmpeg does not listen yet
            time.sleep(0.05)
    raise AssertionError("nothing was served")
