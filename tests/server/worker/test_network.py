"""Live sources from the network, published by an independent program: ffmpeg."""

import socketserver
import statistics
import subprocess
import threading
import time

import pytest

from server.wire.logs import get_logger
from server.wire.messages import AudioPacket, Message, Reconnecting
from server.wire.source_policy import SourcePolicy
from server.worker.ingest.open import open_source
from server.worker.live import LiveIngest
from server.worker.process.picture import Picture
from tests.ports import free_port
from tests.server.clips import write_clip
from tests.server.worker.live_ingest import Ingest, assert_plays, watched

LOOPBACK_RTSP = SourcePolicy(schemes=("rtsp",), hosts=("127.0.0.1",), folders=(), listen_ports=())


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
        port = free_port()
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
    port = free_port()
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=2.0)
    publish("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    source.until(lambda s: len(s.pictures) >= 40)
    assert_plays(source)


def test_udp_is_read_as_mpeg_ts_and_as_nothing_else(ingest, publish):
    port = free_port()
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
    port = free_port()
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
        on_sound_drop=lambda reason: None,
        on_open=lambda: None,
        stop=stop,
        watched=watched(),
        log=get_logger("test"),
    ).run(put)
    assert not [m for m in messages if isinstance(m, Reconnecting)]
