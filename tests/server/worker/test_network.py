"""Live sources from the network, published by an independent program: ffmpeg."""

import functools
import http.server
import logging
import socket
import socketserver
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import pytest

from server.wire.messages import AudioPacket, Message, Reconnecting
from server.wire.source_policy import SourcePolicy
from server.wire.urls import publish_address
from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceUnusable
from server.worker.ingest.synthetic import read_frame_number
from server.worker.live import LiveIngest
from server.worker.process.picture import Picture
from tests.server.clips import write_clip
from tests.server.door import DoorThread

LOOPBACK_RTSP = SourcePolicy(schemes=("rtsp",), hosts=("127.0.0.1",), folders=(), listen_ports=())


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(
        tmp_path_factory.mktemp("clip") / "c.mp4", width=160, height=96, frames=250, audio="aac"
    )


@pytest.fixture
def publish(clip) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts ffmpeg; it plays the clip once at its own pace to where it is told."""
    started = []

    def publish(*where: str) -> subprocess.Popen:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-re",
            "-i",
            str(clip),
            "-c",
            "copy",
        ]
        started.append(subprocess.Popen([*command, *where], stdin=subprocess.DEVNULL))
        return started[-1]

    yield publish
    for process in started:
        process.kill()
        process.wait()


def watched() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class Ingest:
    """A live source running in a thread, and what came of it."""

    def __init__(self, url: str, timeout_s: float = 5.0, policy: SourcePolicy | None = None) -> None:
        self.pictures: list[Picture] = []
        self.messages: list[Message] = []
        self.drops: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.stop = threading.Event()
        address = publish_address(url)
        self.door = DoorThread(address, timeout_s) if address else None
        self._ingest = LiveIngest(
            open_source(
                url,
                policy=policy,
                loop=True,
                max_size=(1920, 1080),
                timeout_s=timeout_s,
                stop=self.stop,
                inbox=self.door.inbox if self.door else None,
            ),
            max_size=(1920, 1080),
            timeout_s=timeout_s,
            send=self.messages.append,
            on_drop=lambda _, reason: self.drops.update([reason]),
            on_open=lambda: None,
            stop=self.stop,
            watched=watched(),
            log=logging.LoggerAdapter(logging.getLogger("test"), {}),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ingest.run(self.pictures.append)
        except SourceUnusable as exc:
            self.failure = exc

    def until(self, done: Callable[["Ingest"], object], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done(self):
            assert time.monotonic() < deadline, (len(self.pictures), self.messages[-3:])
            assert self._thread.is_alive() or self.failure, "the source ended"
            time.sleep(0.02)

    @property
    def lost(self) -> list[Reconnecting]:
        return [m for m in self.messages if isinstance(m, Reconnecting)]

    def end(self) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.door:
            self.door.close()


@pytest.fixture
def ingest() -> Iterator[Callable[..., Ingest]]:
    running = []

    def start(url: str, **options) -> Ingest:
        running.append(Ingest(url, **options))
        return running[-1]

    yield start
    for one in running:
        one.end()


def assert_plays(ingest: Ingest) -> None:
    """Numbered pictures in order, at the pace of the clip, on the clock of their arrival; sound along."""
    pictures = ingest.pictures[5:]
    numbers = [read_frame_number(picture.planes.y) for picture in pictures]
    assert None not in numbers
    assert all(b == a + 1 for a, b in pairwise(numbers))
    for picture in pictures[-20:]:
        assert abs(picture.pts / 90_000 - picture.demuxed_ns / 1e9) < 1.1
    steps = [b.pts - a.pts for a, b in pairwise(pictures[-20:])]
    assert all(abs(step - 3600) <= 100 for step in steps)
    codecs = {m.codec for m in ingest.messages if isinstance(m, AudioPacket)}
    assert codecs == {"aac", "opus"}


def listening(scheme: str) -> tuple[str, list[str]]:
    """A URL that listens, and where ffmpeg publishes to it."""
    port = free_port()
    match scheme:
        case "rtmp":
            where = f"rtmp://127.0.0.1:{port}/live/key"
            return f"{where}?listen=1", ["-f", "flv", where]
        case _:
            where = f"rtsp://127.0.0.1:{port}/live"
            return f"{where}?listen=1", ["-f", "rtsp", "-rtsp_transport", "tcp", where]


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_publisher_comes_goes_and_comes_again(scheme, ingest, publish):
    url, where = listening(scheme)
    source = ingest(url)
    first = publish_until_heard(publish, where, source)
    source.until(lambda s: len(s.pictures) >= 40)
    assert_plays(source)
    first.kill()
    first.wait()
    source.until(lambda s: s.lost)
    assert "the publisher has gone" in source.lost[-1].reason
    seen = len(source.pictures)
    publish_until_heard(publish, where, source)
    source.until(lambda s: len(s.pictures) >= seen + 30)
    assert source.pictures[-1].pts > source.pictures[seen - 1].pts


def test_who_waits_for_a_publisher_says_so_and_goes_on_at_once(ingest):
    """However long nobody came, the pause between two times of waiting stays short."""
    url, _ = listening("rtmp")
    source = ingest(url, timeout_s=0.7)
    source.until(lambda s: len(s.lost) >= 4)
    assert "no publisher" in source.lost[-1].reason
    assert max(lost.retry_in_s for lost in source.lost) < 0.1


@pytest.mark.parametrize(
    ("policy", "asked"),
    [(None, ["RTP/AVP/TCP", "RTP/AVP/UDP"]), (LOOPBACK_RTSP, ["RTP/AVP/TCP"])],
)
def test_a_camera_that_knows_udp_only_is_asked_for_it(policy, asked, ingest):
    """Where the policy lets libav open what it likes."""
    transports = []
    sdp = b"v=0\r\ns=-\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track=0\r\n"

    class Camera(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = []
            for line in self.rfile:
                head.append(line.strip().decode())
                if head[-1]:
                    continue
                method = head[0].split()[0]
                fields = dict(line.split(": ", 1) for line in head[1:-1])
                transports.extend(t.partition(";")[0] for t in [fields.get("Transport")] if t)
                status = "461 Unsupported Transport" if method == "SETUP" else "200 OK"
                body = sdp if method == "DESCRIBE" else b""
                answer = f"RTSP/1.0 {status}\r\nCSeq: {fields['CSeq']}\r\n"
                answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(answer.encode() + body)
                head = []

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = ingest(f"rtsp://127.0.0.1:{server.server_address[1]}/cam", policy=policy)
        source.until(lambda s: s.lost)
        server.shutdown()
        thread.join()
    assert list(dict.fromkeys(transports)) == asked


def test_a_server_that_takes_its_time_to_refuse_is_called_ever_less_often(ingest):
    class Refuse(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            time.sleep(0.7)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = ingest(f"rtsp://127.0.0.1:{server.server_address[1]}/cam")
        source.until(lambda s: len(s.lost) >= 3)
        server.shutdown()
        thread.join()
    assert source.lost[2].retry_in_s >= 1.5


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "udp"])
def test_it_is_known_when_the_last_byte_of_a_picture_arrived(scheme, ingest, publish):
    if scheme == "udp":
        port = free_port(socket.SOCK_DGRAM)
        source = ingest(f"udp://127.0.0.1:{port}")
        publish("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    else:
        url, where = listening(scheme)
        source = ingest(url)
        publish_until_heard(publish, where, source)
    source.until(lambda s: len(s.pictures) >= 80)
    holds_s = [(p.demuxed_ns - p.arrival_ns) / 1e9 for p in source.pictures[40:]]
    assert 0 < statistics.median(holds_s) < 0.02
    assert_plays(source)


def publish_until_heard(publish, where: list[str], source: Ingest) -> subprocess.Popen:
    """A publisher that comes before the port is open gives up; this one tries again, as people do."""
    seen = len(source.pictures)
    deadline = time.monotonic() + 30
    process = publish(*where)
    while len(source.pictures) == seen:
        assert time.monotonic() < deadline, source.messages[-3:]
        if process.poll() is not None:
            process = publish(*where)
        time.sleep(0.05)
    return process


def test_mpeg_ts_over_udp(ingest, publish):
    port = free_port(socket.SOCK_DGRAM)
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=2.0)
    publish("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    source.until(lambda s: len(s.pictures) >= 40)
    assert_plays(source)


def test_udp_is_read_as_mpeg_ts_and_as_nothing_else(ingest, publish):
    port = free_port(socket.SOCK_DGRAM)
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=2.0)
    publish("-f", "flv", f"udp://127.0.0.1:{port}?pkt_size=1316")
    source.until(lambda s: len(s.lost) >= 2)
    assert not source.pictures


def test_a_file_that_is_replaced_while_it_loops_gets_a_decoder_of_its_own(ingest, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", width=160, height=96, frames=10)
    source = ingest(str(path))
    source.until(lambda s: s.pictures)
    write_clip(tmp_path / "next.mkv", width=200, height=120, frames=10, codec="libvpx-vp9").replace(path)
    source.until(lambda s: s.pictures[-1].format.width == 200)
    assert "was replaced" in source.lost[0].reason


def test_silence_is_noticed_and_reported(ingest, publish):
    port = free_port(socket.SOCK_DGRAM)
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=1.5)
    process = publish("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    source.until(lambda s: len(s.pictures) >= 10)
    lost = len(source.lost)
    process.kill()
    process.wait()
    source.until(lambda s: len(s.lost) > lost)
    assert f"udp://127.0.0.1:{port}" in source.lost[-1].reason


def test_a_gateway_that_stalls_costs_no_source(clip):
    """The file has a picture every 40 ms; each packet of sound takes far longer to be sent at first."""
    stop = threading.Event()
    messages: list[Message] = []
    pictures: list[Picture] = []

    def send(message: Message) -> None:
        if isinstance(message, AudioPacket) and len(messages) < 3:
            time.sleep(0.4)
        messages.append(message)

    def put(picture: Picture) -> None:
        pictures.append(picture)
        if len(pictures) > 40:
            stop.set()

    LiveIngest(
        open_source(str(clip), policy=None, loop=True, max_size=(1920, 1080), timeout_s=0.3, stop=stop),
        max_size=(1920, 1080),
        timeout_s=0.3,
        send=send,
        on_drop=lambda stage, reason: None,
        on_open=lambda: None,
        stop=stop,
        watched=watched(),
        log=logging.LoggerAdapter(logging.getLogger("test"), {}),
    ).run(put)
    assert not [m for m in messages if isinstance(m, Reconnecting)]


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_hls_is_waited_for_and_played_at_its_own_pace(ingest, publish, web):
    folder, address = web
    source = ingest(f"{address}/live.m3u8")
    source.until(lambda s: s.lost)
    assert "404" in source.lost[0].reason
    publish("-f", "hls", "-hls_time", "1", "-hls_flags", "delete_segments", str(folder / "live.m3u8"))
    source.until(lambda s: len(s.pictures) >= 60)
    assert_plays(source)
    # Segments come at once; pictures must not.
    given = [picture.demuxed_ns / 1e9 for picture in source.pictures[-50:]]
    assert max(b - a for a, b in pairwise(given)) < 0.6
    assert given[-1] - given[0] > 1.5
    arrivals = [picture.arrival_ns / 1e9 for picture in source.pictures[-50:]]
    assert max(b - a for a, b in pairwise(arrivals)) > 0.4
    assert max(b - a for a, b in zip(arrivals, given, strict=True)) > 0.4


def test_progressive_http_starts_again_at_its_end(ingest, web):
    folder, address = web
    write_clip(folder / "short.mp4", width=160, height=96, frames=20, audio="aac")
    source = ingest(f"{address}/short.mp4?token=secret")
    source.until(lambda s: len(s.pictures) >= 30)
    assert source.lost[0].reason == f"{address}/short.mp4?***: the stream ended"


def test_a_web_page_is_no_stream(ingest, web):
    folder, address = web
    (folder / "index.m3u8").write_text("<html>not a playlist</html>\n" * 50)
    source = ingest(f"{address}/index.m3u8")
    source.until(lambda s: s.lost)
    assert "Invalid data" in source.lost[0].reason


def write_playlist(path: Path, segment: str) -> None:
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{segment}\n#EXT-X-ENDLIST\n")


def test_a_playlist_can_not_make_us_read_local_files(ingest, web, tmp_path_factory):
    folder, address = web
    clip = write_clip(tmp_path_factory.mktemp("private") / "c.ts", width=160, height=96)
    (folder / clip.name).write_bytes(clip.read_bytes())
    write_playlist(folder / "good.m3u8", clip.name)
    write_playlist(folder / "evil.m3u8", f"file://{clip}")
    good, evil = ingest(f"{address}/good.m3u8"), ingest(f"{address}/evil.m3u8")
    good.until(lambda s: s.pictures)  # the same clip, and nothing else is wrong with such a playlist
    evil.until(lambda s: len(s.lost) >= 2 or s.pictures)
    assert not evil.pictures


def test_a_description_can_not_make_us_listen_for_rtp(ingest, publish, web):
    """FFmpeg by itself would open any port that an SDP file from the web names."""
    folder, address = web
    port = free_port(socket.SOCK_DGRAM)
    rtp = ["-an", "-f", "rtp", "-sdp_file", str(folder / "evil.sdp")]
    publish(*rtp, f"rtp://127.0.0.1:{port}")
    source = ingest(f"{address}/evil.sdp")
    # Once it may have been read while ffmpeg wrote it.
    source.until(lambda s: s.pictures or sum("404" not in lost.reason for lost in s.lost) >= 2)
    assert not source.pictures
