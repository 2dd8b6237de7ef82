"""Encoders that push to us, as real programs: keys, shared ports, and workers that die beneath them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from tests.conftest import missing_peer
from tests.peers.service import Service, until
from tests.ports import free_port

Protocol = Literal["rtmp", "rtsp"]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
OUTPUT = {"rtmp": ("-f", "flv"), "rtsp": ("-f", "rtsp", "-rtsp_transport", "tcp")}
KEY = "s3cret-Key"


def encoder(ffmpeg: str, where: str, size: str = "160x90", rate: int = 15, sound: bool = True) -> list[str]:
    """ffmpeg, sending a test picture and perhaps a tone."""
    command = [ffmpeg, "-loglevel", "error", "-re", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}"]
    command += ["-f", "lavfi", "-i", "sine=sample_rate=44100", "-c:a", "aac"] if sound else []
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
    return [*command, "-g", str(rate), *OUTPUT[where.partition(":")[0]], where]


def refused(command: list[str]) -> bool:
    """Whether the program gives up by itself, as one does that is told no."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode != 0


@contextmanager
def waiting(service: Service, name: str, protocol: Protocol, port: int, path: str) -> Iterator[str]:
    """A stream that waits, and where it is published to."""
    where = f"{protocol}://127.0.0.1:{port}/{path}"
    with service.stream(name, f"{where}?listen=1", source_timeout_s=2):
        service.wait_for(name, "reconnecting")  # from here on the port is open
        yield where


def views(ffmpeg: str, service: Service, name: str) -> bool:
    """Whether a player of HLS shows pictures."""
    command = [ffmpeg, "-v", "error", "-i", f"{service.url}hls/{name}/index.m3u8", "-frames:v", "5"]
    return subprocess.run([*command, "-f", "null", "-"], capture_output=True, timeout=90).returncode == 0


@pytest.mark.parametrize("protocol", OUTPUT)
def test_only_the_right_key_is_taken(service: Service, ffmpeg: str, spawn: Spawn, protocol: Protocol) -> None:
    port = free_port()
    with waiting(service, "keyed", protocol, port, f"live/{KEY}") as where:
        for path in ("other/WRONG", "live/WRONG", KEY, f"live/{KEY}/more"):
            assert refused(encoder(ffmpeg, f"{protocol}://127.0.0.1:{port}/{path}")), path
            assert service.show("keyed")["state"] == "reconnecting"
            assert "no publisher" in service.show("keyed")["reason"]
        publisher = spawn(*encoder(ffmpeg, where))
        service.wait_for("keyed", "running")
        until(lambda: views(ffmpeg, service, "keyed"), "a viewer sees it")
        assert refused(encoder(ffmpeg, where)), "there is one publisher at a time"
        service.wait_for_frames("keyed")
        assert publisher.poll() is None
        shown = str(service.show("keyed"))
    assert KEY not in shown + service.log()
    assert "WRONG" not in shown + service.log()


@pytest.mark.parametrize("protocol", OUTPUT)
def test_an_encoder_does_not_notice_that_a_worker_dies(
    service: Service, ffmpeg: str, spawn: Spawn, protocol: Protocol
) -> None:
    with waiting(service, "kept", protocol, free_port(), "live/key") as where:
        said = len(service.log())
        publisher = spawn(*encoder(ffmpeg, where))
        service.wait_for("kept", "running")
        for deaths in (1, 2):
            (worker,) = service.workers()
            os.kill(worker, signal.SIGKILL)
            until(lambda n=deaths: service.show("kept")["worker"]["restarts"] == n, "the worker is replaced")
            service.wait_for("kept", "running")
            service.wait_for_frames("kept")
        assert publisher.poll() is None, "the same encoder"
        assert service.log()[said:].count("publisher came ") == 1


@pytest.mark.parametrize("protocol", OUTPUT)
def test_two_streams_share_a_port(service: Service, ffmpeg: str, spawn: Spawn, protocol: Protocol) -> None:
    port = free_port()
    with waiting(service, "one", protocol, port, "live/one") as one:
        with waiting(service, "two", protocol, port, "live/two") as two:
            spawn(*encoder(ffmpeg, one))
            spawn(*encoder(ffmpeg, two, size="200x120"))
            assert service.wait_for("one", "running")["input"]["width"] == 160
            assert service.wait_for("two", "running")["input"]["width"] == 200
        service.wait_for_frames("one")
        assert refused(encoder(ffmpeg, two)), "the other has gone"
        service.wait_for_frames("one")
    assert refused(encoder(ffmpeg, one)), "and the port with the last"


@pytest.mark.parametrize("protocol", OUTPUT)
def test_a_publisher_comes_back_with_other_size_and_sound(
    service: Service, ffmpeg: str, spawn: Spawn, protocol: Protocol
) -> None:
    with waiting(service, "back", protocol, free_port(), "live/key") as where:
        for size, sound in (("160x90", True), ("200x120", False), ("160x90", True)):
            publisher = spawn(*encoder(ffmpeg, where, size=size, sound=sound))
            until(
                lambda w=size: (
                    (now := service.show("back"))["input"]
                    and now["state"] == "running"
                    and f"{now['input']['width']}x{now['input']['height']}" == w
                ),
                f"{size} is seen",
            )
            assert service.show("back")["input"]["audio"] is sound
            publisher.kill()
            publisher.wait()
            assert "the publisher has gone" in service.wait_for("back", "reconnecting")["reason"]


def test_a_port_that_is_taken_is_named_and_had_once_it_is_free(
    service: Service, ffmpeg: str, spawn: Spawn
) -> None:
    port = free_port()
    where = f"rtmp://127.0.0.1:{port}/live/key"
    with waiting(service, "holder", "rtsp", port, "live/key"), service.stream("taken", f"{where}?listen=1"):
        reason = service.wait_for("taken", "reconnecting")["reason"]
        assert f"port {port}" in reason
        assert "in use" in reason
        service.http.delete("/api/streams/holder")
        command = encoder(ffmpeg, where)
        publisher = spawn(*command)

        def runs() -> bool:
            nonlocal publisher
            if publisher.poll() is not None:
                publisher = spawn(*command)
            return service.show("taken")["state"] == "running"

        until(runs, "the port is had")


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_enhanced_rtmp_is_taken(service: Service, ffmpeg: str, spawn: Spawn, codec: str) -> None:
    """HEVC and AV1 in FLV, and a worker that begins in the middle of them."""
    with waiting(service, "enhanced", "rtmp", free_port(), "live/key") as where:
        picture = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10", "-c:v", codec, "-pix_fmt", "yuv420p")
        spawn(ffmpeg, "-loglevel", "error", "-re", *picture, "-g", "10", "-preset", "8" if "av1" in codec
              else "ultrafast", "-f", "flv", where)  # fmt: skip
        source = service.wait_for("enhanced", "running")["input"]
        assert source["codec"] == {"libx265": "hevc", "libsvtav1": "av1"}[codec]
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.show("enhanced")["worker"]["restarts"] == 1, "the worker is replaced")
        service.wait_for("enhanced", "running")


@pytest.mark.parametrize(
    ("sink", "protocol", "package"),
    [
        ("flvmux streamable=true ! rtmp2sink location={}", "rtmp", "gstreamer1.0-plugins-bad"),
        ("rtspclientsink protocols=tcp location={}", "rtsp", "gstreamer1.0-rtsp"),
    ],
    ids=["rtmp2sink", "rtspclientsink"],
)
def test_gstreamer_publishes(
    service: Service,
    program: Callable[[str, str], str],
    spawn: Spawn,
    sink: str,
    protocol: Protocol,
    package: str,
) -> None:
    gst = program("gst-launch-1.0", "gstreamer1.0-tools")
    element = next(word for word in sink.split() if word.endswith("sink"))
    if subprocess.run([gst.replace("launch", "inspect"), "--exists", element]).returncode:
        missing_peer(element, f"apt-get install {package}")
    picture = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=90,framerate=15/1"
    coder = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! h264parse"
    with waiting(service, "gst", protocol, free_port(), "live/key") as where:
        wrong = f"{picture} ! {coder} ! {sink.format(where.replace('key', 'WRONG'))}"
        assert refused([gst, "-q", *wrong.split()])
        assert service.show("gst")["state"] == "reconnecting"
        spawn(gst, "-q", *f"{picture} ! {coder} ! {sink.format(where)}".split())
        assert service.wait_for("gst", "running")["input"]["width"] == 160
        service.wait_for_frames("gst")
