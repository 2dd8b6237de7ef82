"""A stream sent on: to ourselves by RTMP and RTSP, to ffmpeg as an RTMP server, and as MPEG-TS."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest

from server.worker.ingest.synthetic import read_frame_number
from tests.conftest import missing_peer
from tests.peers.service import FOR_PEERS, Service, running, until
from tests.peers.test_aiortc import loopback, watch  # noqa: F401
from tests.peers.test_publishers import Spawn
from tests.ports import free_port

SOURCE = "synthetic:?size=160x90&fps=12"


@pytest.fixture(scope="module")
def pushing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    schemes = ("rtmp", "rtsp", "udp", "srt")
    allowed = [f"{scheme}://127.0.0.1:{port}/" for scheme in schemes for port in PORTS.values()]
    allowed.append(f"whip://127.0.0.1:{PORTS['whip']}/")
    base = f"{FOR_PEERS}[push]\nallowed = {json.dumps(allowed)}\n"
    with running(tmp_path_factory.mktemp("push"), base=base, port=PORTS["whip"]) as service:
        yield service


PORTS = {name: free_port() for name in ("rtmp", "rtsp", "listener", "udp", "whip")}


def pushed(service: Service, stream: str) -> dict[str, Any]:
    (push,) = service.show(stream)["push"]
    return push


def processes(service: Service) -> list[int]:
    """Of pushes."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"server.push.main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def probed(program: Callable[[str, str], str], *words: str) -> dict[str, Any]:
    """What ffprobe says of the picture; sound in AAC is there as well."""
    show = (program("ffprobe", "ffmpeg"), "-v", "error", "-of", "json", "-show_streams", *words)
    said = json.loads(subprocess.run(show, check=True, capture_output=True, timeout=90).stdout)
    streams = {stream["codec_name"]: stream for stream in said["streams"]}
    assert set(streams) == {"h264", "aac"}
    return streams["h264"]


def other_end(how: str) -> tuple[str, str]:
    """The source of who takes it, and where it is pushed to."""
    there = f"{how}://127.0.0.1:{PORTS[how]}"
    match how:
        case "whip":
            return "whip:", f"whip://secret-token@127.0.0.1:{PORTS['whip']}/whip/taken"
        case _:
            return f"{there}/live/secret-{how}?listen=1", f"{there}/live/secret-{how}"


@pytest.mark.parametrize("how", ["rtmp", "rtsp", "whip"])
def test_it_is_the_source_of_another_stream(pushing: Service, how: str) -> None:
    source, address = other_end(how)
    with (
        pushing.stream("taken", source, source_timeout_s=2),
        pushing.stream("sent", SOURCE, push=[address]),
    ):
        seen = pushing.wait_for("taken", "running")
        assert (seen["input"]["width"], seen["input"]["height"]) == (320, 180), "as large as it was upscaled"
        assert seen["input"]["codec"] == "h264"
        assert seen["input"]["audio"]
        pictures = asyncio.run(watch(pushing, "taken", 12))
        numbers = [read_frame_number(p.to_ndarray(format="gray"), scale=4) for p in pictures]
        assert None not in numbers
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 6, "a late one is shown again where the next is missing"
        until(lambda: pushed(pushing, "sent")["connected"], "it says so")
        assert pushed(pushing, "sent")["target"] == f"{how}://127.0.0.1:{PORTS[how]}/***"
        metric = f'livesr_push{{stream="sent",target="{how}://127.0.0.1:{PORTS[how]}/***"}} 1.0'
        assert metric in pushing.http.get("/metrics").text

        if how == "whip":
            pushing.http.delete("/api/streams/taken")
            until(lambda: not pushed(pushing, "sent")["connected"], "the other side has gone")
            pushing.http.post("/api/streams", json={"id": "taken", "source": source})
        else:
            (process,) = processes(pushing)
            os.kill(process, signal.SIGKILL)
        until(lambda: pushed(pushing, "sent")["restarts"] > 0, "its end is seen")
        until(lambda: pushed(pushing, "sent")["connected"], "another one takes its place")
        pushing.wait_for("taken", "running")
        pushing.wait_for_frames("taken", 10)
        command = Path(f"/proc/{processes(pushing)[0]}/cmdline").read_text()
        assert "secret" not in command + pushing.log()
    until(lambda: not processes(pushing), "with the stream the push ends")


@pytest.mark.parametrize(
    ("scheme", "where", "listens", "nobody"),
    [
        ("rtmp", "/live/key", ("-f", "flv", "-listen", "1"), "refused"),
        ("srt", "/?passphrase=keykeykeykey&mode=", ("-f", "mpegts"), "nobody answers"),
    ],
)
def test_ffmpeg_takes_it_as_a_server_and_is_waited_for(
    pushing: Service,
    program: Callable[[str, str], str],
    tmp_path: Path,
    scheme: str,
    where: str,
    listens: tuple[str, ...],
    nobody: str,
) -> None:
    ffmpeg, file = program("ffmpeg", "ffmpeg"), tmp_path / "taken.mp4"
    address = f"{scheme}://127.0.0.1:{PORTS['listener']}{where}"
    theirs, ours = (f"{address}listener", f"{address}caller") if where.endswith("=") else (address, address)
    with pushing.stream("early", SOURCE, push=[ours]):
        until(lambda: nobody in pushed(pushing, "early")["reason"], "nobody is there yet")
        assert pushing.show("early")["state"] == "running"
        listen = (ffmpeg, "-loglevel", "error", *listens, "-i", theirs)
        subprocess.run([*listen, "-t", "3", "-c", "copy", file], check=True, timeout=90)
        until(lambda: pushed(pushing, "early")["restarts"] > 1, "the listener has gone")
    picture = probed(program, "-count_frames", str(file))
    assert int(picture["nb_read_frames"]) >= 25
    numbers = numbers_of(file, "mp4")
    assert numbers == sorted(set(numbers)), "each picture once, in its order"
    assert "keykey" not in pushing.log()


def test_an_rtsp_server_takes_it_goes_and_comes_back(pushing: Service, spawn: Spawn, tmp_path: Path) -> None:
    """One that is independent of us, as MediaMTX is: GStreamer's."""
    python, script = "/usr/bin/python3", str(Path(__file__).parent / "gst_rtsp_server.py")
    known = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if not Path(python).exists() or subprocess.run([python, "-c", known], capture_output=True).returncode:
        missing_peer("GStreamer's RTSP server", "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0")
    address = f"rtsp://127.0.0.1:{PORTS['rtsp']}/cam"
    with pushing.stream("nvr", SOURCE, push=[address]):
        until(lambda: "refused" in pushed(pushing, "nvr")["reason"], "nobody is there yet")
        for file in (tmp_path / "first", tmp_path / "second"):
            server = spawn(python, script, str(PORTS["rtsp"]), file)
            until(lambda f=file: len(numbers_of(f)) > 12, "it has pictures")
            server.kill()
            server.wait()
            numbers = numbers_of(file)
            assert numbers == sorted(numbers)
            until(lambda: not pushed(pushing, "nvr")["connected"], "it has gone")


def numbers_of(file: Path, form: str = "h264") -> list[int]:
    """Of the pictures in a file that somebody may yet write to."""
    if not file.exists() or not file.stat().st_size:
        return []
    with suppress(av.FFmpegError), av.open(file, format=form) as container:
        numbers = []
        with suppress(av.FFmpegError):
            for picture in container.decode(video=0):
                assert (picture.width, picture.height) == (320, 180)
                numbers.append(read_frame_number(picture.to_ndarray(format="gray"), scale=2))
        assert None not in numbers[:-1]  # the last may not be whole
        return numbers[:-1]
    return []


def test_mpeg_ts_is_read_by_ffmpeg(pushing: Service, program: Callable[[str, str], str]) -> None:
    address = f"udp://127.0.0.1:{PORTS['udp']}"
    with pushing.stream("datagrams", SOURCE):
        changed = pushing.http.patch("/api/streams/datagrams", json={"push": [f"{address}/"]}).json()
        assert changed["restarted"] == [], "under the same viewers"
        picture = probed(program, address)
        assert (picture["width"], picture["height"]) == (320, 180)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("rtmp://127.0.0.1:1/live/key", "must begin as one of push.allowed does"),
        ("rtmp://127.0.0.1:{udp}@localhost/live/key", "must begin as one of push.allowed does"),
        ("gopher://127.0.0.1/x", "must be of rtmp, rtmps, rtsp, udp, srt, whip, whips, and name a host"),
        ("udp://127.0.0.1", "must name a port"),
        ("srt://127.0.0.1:9/?mode=listener&passphrase=keykeykeykey", "a push calls: mode must be caller"),
    ],
)
def test_an_address_that_is_not_allowed_is_refused(pushing: Service, address: str, why: str) -> None:
    answer = pushing.http.post(
        "/api/streams", json={"id": "no", "source": SOURCE, "push": [address.format(**PORTS)]}
    )
    assert answer.status_code == 422
    assert why in answer.text
    assert "key" not in answer.text.replace("key_", "")
