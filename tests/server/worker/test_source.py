import itertools
import subprocess
import sys
import threading
import time
from fractions import Fraction

import av
import pytest

from server.worker.ingest.file import FileSource
from server.worker.ingest.network import NetworkSource
from server.worker.ingest.open import open_source
from server.worker.ingest.source import Source, SourceLost, SourceUnusable
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.picture import plane_view
from tests.conftest import ROOT
from tests.server.clips import write_clip


def opened(url: str, stop: threading.Event | None = None) -> Source:
    return open_source(
        url, policy=None, loop=True, max_size=(1920, 1080), timeout_s=1, stop=stop or threading.Event()
    )


@pytest.mark.parametrize("url", ["gopher://host/x", "concat:a|b", "pipe:0", "lavfi:testsrc", "ftp://h/a.mp4"])
def test_unknown_scheme_is_named(url):
    with pytest.raises(ValueError, match=f"scheme '{url.partition(':')[0]}' must be one of"):
        opened(url)


def test_schemes_choose_their_source():
    assert isinstance(opened("clip.mp4"), FileSource)
    assert isinstance(opened("file:///clip.mp4"), FileSource)
    assert isinstance(opened("demo:"), FileSource)
    assert isinstance(opened("RTSP://host/cam"), NetworkSource)


def test_only_rtmp_and_rtsp_can_listen():
    with pytest.raises(ValueError, match="listen=1 needs rtmp or rtsp"):
        opened("http://h/a.m3u8?listen=1")


def test_shown_urls_hold_no_secrets():
    source = opened("rtsp://user:secret@127.0.0.1:9/cam?token=x")
    with pytest.raises(SourceLost) as failure:
        source.open()
    assert "127.0.0.1:9/cam" in str(failure.value)
    assert "secret" not in str(failure.value)
    assert "token" not in str(failure.value)


def test_missing_file(tmp_path):
    with pytest.raises(SourceUnusable, match=r"none\.mp4: no such file"):
        opened(str(tmp_path / "none.mp4")).open()
    with pytest.raises(SourceUnusable, match="is no file"):
        opened(str(tmp_path)).open()


def test_file_that_is_no_media(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_bytes(b"not a film at all\n" * 100)
    with pytest.raises(SourceUnusable, match=r"notes\.mp4: is no media file"):
        opened(str(path)).open()


def test_file_without_video(tmp_path):
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame("s16", "mono", 4800)
        frame.planes[0].update(bytes(9600))
        frame.sample_rate, frame.pts = 48_000, 0
        out.mux(sound.encode(frame))
    with pytest.raises(SourceUnusable, match="it has no video stream"):
        opened(str(path)).open()


def test_a_colon_in_a_name_is_no_protocol(tmp_path):
    path = write_clip(tmp_path / "part:1.mp4", frames=3)
    source = opened(str(path))
    assert source.open().video.name == "h264"
    source.close()


def test_file_comes_at_its_own_pace_and_loops_without_a_seam(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=10, fps=50, audio="aac")
    stop = threading.Event()
    source = opened(str(path), stop)
    tracks = source.open()
    started_s = time.monotonic()
    pts, numbers, arrivals, sound = [], [], [], []
    for arrival in source.arrivals():
        if not arrival.video:
            sound.append(arrival.packet.pts)
            continue
        for frame in tracks.video.decode(arrival.packet):
            pts.append(frame.pts * frame.time_base)
            numbers.append(read_frame_number(plane_view(frame, 0)))
            arrivals.append(arrival.times.arrival_ns / 1e9)
        if len(pts) >= 30:
            stop.set()
    source.close()
    assert numbers == [n % 10 for n in range(30)]
    steps = [b - a for a, b in itertools.pairwise(pts)]
    assert {step for n, step in enumerate(steps) if (n + 1) % 10} == {pts[1] - pts[0]}
    assert max(steps) < 0.05, "where it starts again, at most the sound's last packet is waited for"
    assert time.monotonic() - started_s >= 29 / 50
    assert arrivals[-1] - arrivals[0] >= 29 / 50 - 0.05
    assert sound == sorted(sound)


def test_a_file_gives_its_last_pictures_where_its_sound_lies_first(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=10, fps=50, audio="aac", audio_first=True, b_frames=2)
    source = open_source(
        str(path), policy=None, loop=False, max_size=(1920, 1080), timeout_s=1, stop=threading.Event()
    )
    tracks = source.open()
    pictures = [arrival.packet for arrival in source.arrivals() if arrival.video]
    source.close()
    frames = [frame for packet in pictures for frame in tracks.video.decode(packet)]
    assert [read_frame_number(plane_view(frame, 0)) for frame in frames] == list(range(10))


# What a worker does with a file, and the most memory that it had meanwhile.
OPEN_AND_DECODE = """
import re, sys, threading
from server.wire.logs import get_logger
from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceUnusable
from server.worker.process.decode import PictureDecoder

size = (1920, 1080)
source = open_source(sys.argv[1], policy=None, loop=False, max_size=size, timeout_s=1, stop=threading.Event())
log = get_logger("test")
try:
    tracks = source.open()
    decoder = PictureDecoder(tracks, max_size=size, stamp=lambda *_: (0, 0), on_drop=print, log=log)
    for arrival in source.arrivals():
        decoder.decode(arrival.packet, arrival.times)
except SourceUnusable as exc:
    print(exc)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_a_picture_is_judged_before_there_is_memory_for_it(tmp_path):
    """0.3 MB that would be 300 MB, whatever its container says: the picture's own header is believed."""
    path = tmp_path / "bomb.mp4"
    bomb = av.CodecContext.create("png", "w")
    bomb.width, bomb.height, bomb.pix_fmt, bomb.time_base = 10_000, 10_000, "rgb24", Fraction(1)
    with av.open(str(path), "w") as out:
        video = out.add_stream("png", rate=1)
        video.width, video.height, video.pix_fmt = 160, 96, "rgb24"
        for packet in bomb.encode(av.VideoFrame(10_000, 10_000, "rgb24")):
            packet.stream = video
            out.mux(packet)
    command = [sys.executable, "-c", OPEN_AND_DECODE, str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    reason, peak_kb = said.splitlines()
    assert reason.endswith("above the limit of 1920×1080")
    assert int(peak_kb) < 250_000


def test_waiting_for_the_next_frame_ends_at_once_when_stopped(tmp_path):
    path = write_clip(tmp_path / "slow.mkv", frames=3, fps=1)
    stop = threading.Event()
    source = opened(str(path), stop)
    source.open()
    arrivals = source.arrivals()
    next(arrivals)
    threading.Timer(0.05, stop.set).start()
    started_s = time.monotonic()
    list(arrivals)
    assert time.monotonic() - started_s < 0.8
    source.close()


def test_an_elementary_stream_is_paced_by_its_nominal_rate(tmp_path):
    path = write_clip(tmp_path / "clip.h264", frames=5, fps=25)
    stop = threading.Event()
    source = opened(str(path), stop)
    source.open()
    times = []
    for arrival in source.arrivals():
        times.append(arrival.times.arrival_ns / 1e9)
        if len(times) == 12:  # more than two passes
            stop.set()
    source.close()
    assert times[-1] - times[0] >= 11 / 25 - 0.05
