"""SRT as a source: ffmpeg and GStreamer as the other side, as callers and as listeners."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from server.srt import libsrt
from server.wire.messages import Reconnecting
from server.wire.source_policy import SourcePolicy
from server.wire.srt import srt_address
from server.worker.ingest.srt import SrtReceiver
from tests.conftest import missing_peer
from tests.ports import free_port
from tests.server.worker.live_ingest import Ingest, assert_plays

SECRETS = "streamid=%23!::r=cam,m=publish&passphrase=correct-horse"
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def installed() -> None:
    try:
        libsrt.load()
    except libsrt.SrtError:
        missing_peer("libsrt", "apt-get install libsrt1.5-openssl")


def receivers() -> list[int]:
    """Processes of ours that receive by SRT."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for words in children for pid in words.read_text().split()]
    return [pid for pid in pids if b"server.srt.main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def said(source: Ingest) -> str:
    return "\n".join(m.reason for m in source.messages if isinstance(m, Reconnecting))


def test_a_caller_with_streamid_and_passphrase_publishes_goes_and_comes_back(
    ingest: Callable[..., Ingest], publish: Start
) -> None:
    port = free_port()
    source = ingest(f"srt://127.0.0.1:{port}?mode=listener&{SECRETS}", timeout_s=2)
    source.until(lambda s: s.lost)
    assert "no publisher within 2 s" in said(source)

    right = f"srt://127.0.0.1:{port}?{SECRETS}"
    wrong = (right.replace("cam", "other"), right.replace("horse", "house"), right.partition("&")[0])
    for refused in [publish("-f", "mpegts", address) for address in wrong]:
        assert refused.wait(30) != 0, refused.args
    first = publish("-f", "mpegts", right)
    source.until(lambda s: len(s.pictures) >= 40)
    assert publish("-f", "mpegts", right).wait(30) != 0, "one publisher at a time"
    assert_plays(source)
    (process,) = receivers()
    assert "horse" not in Path(f"/proc/{process}/cmdline").read_text()

    first.terminate()
    source.until(lambda s: "the other side has gone" in said(s))
    seen = len(source.pictures)
    publish("-f", "mpegts", right)
    source.until(lambda s: len(s.pictures) >= seen + 30)
    assert source.pictures[-1].pts > source.pictures[seen - 1].pts
    assert source.lost[-1].retry_in_s < 0.1, "who comes back seldom finds the port closed"
    assert "horse" not in said(source)
    source.end()
    assert not receivers()


def test_we_call_a_listener_and_call_again(ingest: Callable[..., Ingest], publish: Start) -> None:
    port = free_port()
    source = ingest(f"srt://localhost:{port}?{SECRETS}", timeout_s=2)
    source.until(lambda s: s.lost)
    assert f"srt://localhost:{port}?***: nobody answers" in said(source)
    listen = f"srt://127.0.0.1:{port}?mode=listener&passphrase="
    wrong = publish("-f", "mpegts", f"{listen}battery-staple")
    source.until(lambda s: "the passphrase is wrong" in said(s))
    wrong.kill()
    wrong.wait()
    first = publish("-f", "mpegts", f"{listen}correct-horse")
    source.until(lambda s: len(s.pictures) >= 40)
    assert_plays(source)
    (process,) = receivers()
    os.kill(process, signal.SIGKILL)
    source.until(lambda s: "ended with status -9" in said(s))
    first.kill()
    first.wait()
    seen = len(source.pictures)
    publish("-f", "mpegts", f"{listen}correct-horse")
    source.until(lambda s: len(s.pictures) >= seen + 10)


def test_its_receiver_ends_with_the_worker() -> None:
    """Whose end of the pipe is closed by the system, however it died."""
    receiver = SrtReceiver(
        srt_address(f"srt://127.0.0.1:{free_port()}?mode=listener"), ["127.0.0.1"], timeout_s=5
    )
    process = receiver._process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    receiver.close()


def test_we_are_let_in_by_streamid_and_passphrase() -> None:
    """Both sides are ours: ffmpeg lets in any streamid."""
    right = srt_address(f"srt://127.0.0.1:{free_port()}?{SECRETS}")
    receiver = SrtReceiver(structs.replace(right, mode="listener"), ["127.0.0.1"], timeout_s=30)
    for wrong, why in (
        (structs.replace(right, streamid="other"), "the streamid is refused"),
        (structs.replace(right, passphrase="battery-staple"), "the passphrase is wrong"),
        (structs.replace(right, passphrase=""), "one side has a passphrase"),
    ):
        with pytest.raises(libsrt.SrtError, match=why):
            libsrt.call(wrong, ["127.0.0.1"], timeout_s=20)
    connection = libsrt.call(right, ["127.0.0.1"], timeout_s=20)
    connection.send(bytes(2000))
    receiver.socket.settimeout(30)
    assert [len(receiver.socket.recv(1 << 16)) for _ in range(2)] == [1316, 684]
    with pytest.raises(libsrt.SrtError, match="somebody else is connected"):
        libsrt.call(right, ["127.0.0.1"], timeout_s=20)
    connection.close()
    assert receiver.socket.recv(1 << 16) == b""
    assert receiver.reason() == "the other side has gone"
    receiver.close()


def test_gstreamer_is_a_listener(ingest: Callable[..., Ingest], gstreamer: Callable[[str], None]) -> None:
    port = free_port()
    source = ingest(f"srt://127.0.0.1:{port}?passphrase=correct-horse")
    gstreamer(f"srtsink uri=srt://127.0.0.1:{port}?mode=listener&passphrase=correct-horse")
    source.until(lambda s: len(s.pictures) >= 20)
    assert source.pictures[0].planes.y.shape == (90, 160)


@pytest.fixture
def gstreamer() -> Iterator[Callable[[str], None]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(sink: str) -> None:
        gst = shutil.which("gst-launch-1.0")
        if gst is None:
            missing_peer("gst-launch-1.0", "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-bad")
        picture = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=90,framerate=25/1"
        coder = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! mpegtsmux alignment=7"
        started.append(subprocess.Popen([gst, "-q", *f"{picture} ! {coder} ! {sink}".split()]))

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_it_is_called_only_where_the_policy_says_so(ingest: Callable[..., Ingest]) -> None:
    policy = SourcePolicy(schemes=("srt",), hosts=(), folders=(), listen_ports=())
    source = ingest("srt://localhost:9000", policy=policy)
    source.until(lambda s: s.lost)
    assert "localhost has no address that sources.hosts allows" in said(source)
    assert not receivers()


def test_where_there_is_no_libsrt_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsrt, "find_library", lambda name: None)
    libsrt.load.cache_clear()
    try:
        with pytest.raises(libsrt.SrtError, match=r"not installed: Debian's package libsrt1\.5-openssl"):
            libsrt.version()
    finally:
        libsrt.load.cache_clear()
