"""Sources whose picture pauses, moves to another track, or has timestamps that wrap or stand still."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from server.wire.logs import get_logger
from server.wire.messages import AudioPacket, PictureMissing
from server.worker.ingest.container import tracks_of
from server.worker.ingest.source import Arrival, Times, Tracks
from server.worker.live import LiveIngest
from server.worker.process.picture import Picture
from tests.ports import free_port
from tests.server.clips import write_clip
from tests.server.worker.live_ingest import Ingest

Send = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Send]:
    """Starts ffmpeg, which sends a test picture and a tone as MPEG-TS."""
    started: list[subprocess.Popen[bytes]] = []

    def send(port: int, *words: str, picture_s: float = 1000, codec: str = "libx264") -> subprocess.Popen:
        where = f"udp://127.0.0.1:{port}?pkt_size=1316"
        picture, sound = f"testsrc2=size=160x96:rate=25:d={picture_s}", "sine=sample_rate=48000"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin"]
        command += ["-re", "-f", "lavfi", "-i", picture]
        command += ["-re", "-f", "lavfi", "-i", sound, "-c:v", codec, "-pix_fmt", "yuv420p", "-g", "10"]
        command += [
            "-bf",
            "0",
            "-c:a",
            "aac",
            "-max_interleave_delta",
            "100000",
            *words,
            "-f",
            "mpegts",
            where,
        ]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return started[-1]

    yield send
    for process in started:
        process.kill()
        process.wait()


def sounds(source: Ingest) -> int:
    return sum(isinstance(message, AudioPacket) for message in source.messages)


def test_a_source_with_its_sound_alone_is_left_open(ingest: Callable[..., Ingest], send: Send) -> None:
    port = free_port()
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=1.5)
    first = send(port, picture_s=2)
    source.until(lambda s: any(isinstance(m, PictureMissing) for m in s.messages))
    lost = len(source.lost)  # before anybody sent
    heard = sounds(source)
    source.until(lambda s: sounds(s) > heard + 300)  # three seconds
    assert len(source.lost) == lost
    assert sum(isinstance(m, PictureMissing) for m in source.messages) == 1
    pictures = len(source.pictures)
    first.kill()
    first.wait()
    send(port)
    source.until(lambda s: len(s.pictures) > pictures + 20)
    assert source.pictures[-1].opening == source.pictures[0].opening, "the same opening"


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_picture_that_moves_to_another_track_is_found(
    ingest: Callable[..., Ingest], send: Send, codec: str
) -> None:
    port = free_port()
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=1.5)
    first = send(port, "-streamid", "0:256", "-streamid", "1:400")
    source.until(lambda s: len(s.pictures) > 20)
    first.kill()
    first.wait()
    send(port, "-streamid", "0:300", "-streamid", "1:400", codec=codec)
    before = source.pictures[-1].opening
    source.until(lambda s: s.pictures[-1].opening > before)
    assert source.pictures[-1].format.codec == {"libx264": "h264"}.get(codec, codec)


def test_timestamps_that_wrap_go_on(ingest: Callable[..., Ingest], send: Send) -> None:
    """33 bits at 90 kHz are over after 26.5 hours."""
    port = free_port()
    source = ingest(f"udp://127.0.0.1:{port}", timeout_s=5.0)
    send(port, "-output_ts_offset", str((1 << 33) / 90_000 - 3))
    source.until(lambda s: len(s.pictures) > 150)
    assert len({picture.opening for picture in source.pictures}) == 1
    pts = [picture.pts for picture in source.pictures[30:]]
    assert all(3000 < b - a < 4200 for a, b in pairwise(pts))


class StoppedClock:
    """A source that sends a picture every 20 ms, all of one timestamp."""

    def __init__(self, clip: Path, stop: threading.Event) -> None:
        self._clip = clip
        self._stop = stop

    def open(self) -> Tracks:
        self._container = av.open(str(self._clip))
        return tracks_of(self._container.streams.video[0], None)

    def arrivals(self) -> Iterator[Arrival]:
        for packet in self._container.demux(video=0):
            self._stop.wait(0.02)
            if packet.size:
                packet.pts = 7
                yield Arrival(video=True, packet=packet, times=Times.at(time.monotonic_ns()))
        self._stop.set()

    def close(self) -> None:
        self._container.close()


def test_a_clock_that_stands_still_is_left_behind(tmp_path: Path) -> None:
    stop = threading.Event()
    always = threading.Event()
    always.set()
    pictures: list[Picture] = []
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=60)
    LiveIngest(
        StoppedClock(clip, stop), max_size=(1920, 1080), timeout_s=5, send=print,
        on_drop=print, on_sound_drop=print, on_open=lambda: None, stop=stop, watched=always,
        log=get_logger("test"),
    ).run(pictures.append)  # fmt: skip
    assert len(pictures) == 60
    for picture in pictures:
        assert abs(picture.pts / 90_000 - picture.arrival_ns / 1e9) < 0.001
