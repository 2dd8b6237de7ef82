"""The real worker process, spoken to as the gateway does: over one end of a socket pair."""

import functools
import http.server
import socket
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from msgspec.structs import astuple

from server.settings import DEFAULT_MODEL
from server.wire.messages import (
    AudioPacket,
    Dropped,
    Heartbeat,
    JobImpossible,
    Opened,
    Reconnecting,
    RequestKeyframe,
    Stop,
    VideoPacket,
    WorkerBroken,
)
from tests.server.clips import write_clip
from tests.server.worker.worker_process import numbers


def test_a_stream_from_start_to_stop(start):
    worker = start().until(lambda w: len(w.video()) >= 60 and len(w.of(Heartbeat)) >= 3)
    first_packet = worker.messages.index(worker.video()[0])
    [opened] = worker.of(Opened)
    assert worker.messages.index(opened) < first_packet
    assert (opened.source.codec, opened.source.width, opened.source.height) == ("rawvideo", 160, 96)
    assert (opened.output.width, opened.output.height, opened.engine.scale) == (320, 192, 2)
    assert (opened.engine.model, opened.output.encoder, opened.source.fps) == (DEFAULT_MODEL, "libx264", 25.0)
    assert opened.audio
    assert (opened.audio.rate_hz, opened.audio.channels) == (48_000, 1)

    packets = worker.video()
    assert packets[0].keyframe
    pts = [packet.pts for packet in packets]
    assert pts == sorted(set(pts))
    dropped = sum(drop.count for drop in worker.of(Dropped))
    seen = numbers(packets, 2)
    assert seen == sorted(seen), "frames come in order"
    assert seen[-1] - seen[0] + 1 - len(seen) <= dropped, "what is missing was counted"
    # Frame n is due at n/25 s of the same clock that pts counts.
    for packet, number in zip(packets, seen, strict=True):
        assert packet.pts / 90_000 - number / 25 == pytest.approx(0, abs=1.1)
        assert packet.duration == 3600
        stages_s = astuple(packet.trace)
        assert all(seconds >= 0 for seconds in stages_s)
        total_s = (packet.sent_ns - packet.arrival_ns) / 1e9
        assert sum(stages_s) == pytest.approx(total_s, abs=0.01)

    heartbeat = worker.of(Heartbeat)[-1]
    assert heartbeat.rss_bytes > 20e6
    assert heartbeat.cpu_s > 0
    assert set(heartbeat.queues) == {"upscale", "encode"}

    sounds = {packet.codec: packet for packet in worker.of(AudioPacket)}
    assert set(sounds) == {"aac", "opus"}
    for packet in sounds.values():
        assert packet.pts / 48_000 == pytest.approx(worker.video()[-1].pts / 90_000, abs=1.5)

    worker.send(Stop())
    status, log = worker.ended()
    assert status == 0
    assert "stream=test" in log


def test_a_requested_keyframe_comes_with_the_next_frames(start):
    worker = start(keyframe_interval_s=10.0).until(lambda w: len(w.video()) >= 5)
    worker.send(RequestKeyframe())
    asked = len(worker.video())
    worker.until(lambda w: any(packet.keyframe for packet in w.video()[asked:]))
    waited = next(n for n, packet in enumerate(worker.video()[asked:]) if packet.keyframe)
    assert waited <= 25
    assert [packet.keyframe for packet in worker.video()].count(True) == 2
    later = worker.video()[asked + waited :]
    worker.until(lambda w: len(w.video()) > asked + waited + 5)
    later = worker.video()[asked + waited :]
    assert None not in numbers(later, 2), "the IDR alone is enough to start with"


def test_a_worker_ends_with_its_gateway(start):
    worker = start().until(lambda w: w.video())
    worker.socket.shutdown(socket.SHUT_RDWR)
    worker.socket.close()
    assert worker.ended()[0] == 0


def test_stop_ends_a_worker_that_waits_for_a_source(start):
    with socket.socket() as silent:  # accepts, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        worker = start(source=f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam", source_timeout_s=60)
        worker.until(lambda w: w.of(Heartbeat))
        worker.send(Stop())
        started_s = time.monotonic()
        assert worker.ended()[0] == 0
        assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": "gopher://x"}, "scheme 'gopher' must be one of"),
        ({"source": "/nowhere/clip.mp4"}, "/nowhere/clip.mp4: no such file"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"encoder": "vp8"}, "encoder='vp8' must be"),
        ({"preset": "warp"}, "preset='warp' must be one of x264's"),
        ({"max_width": 100}, "picture of 160×96 is above the limit of 100×1080"),
    ],
)
def test_what_can_never_run_fails_with_the_reason(start, changes, reason):
    worker = start(**changes).until(lambda w: w.of(JobImpossible))
    assert reason in worker.of(JobImpossible)[0].reason
    status, log = worker.until_closed().ended()
    assert status == 0
    assert reason in log


def test_a_picture_that_no_engine_takes_fails_with_the_reason(start, tmp_path):
    path = tmp_path / "tiny.avi"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 8, 8, "yuvj420p"
        out.mux(video.encode(av.VideoFrame(8, 8, "yuvj420p")))
        out.mux(video.encode(None))
    worker = start(source=str(path)).until(lambda w: w.of(JobImpossible))
    assert "width=8 must be" in worker.of(JobImpossible)[0].reason


def test_a_stream_that_runs_away_with_memory_ends_and_says_so(start):
    worker = start(module="tests.server.worker.greedy_worker", worker_memory_bytes=1 << 30)
    worker.until(lambda w: w.of(WorkerBroken))
    assert "limits.worker_memory_bytes=1073741824" in worker.of(WorkerBroken)[0].reason
    worker.until_closed()


def test_an_engine_that_is_too_large_for_the_bound_says_so(start):
    worker = start(source="synthetic:?size=1920x1080&fps=5", worker_memory_bytes=1 << 29)
    worker.until(lambda w: w.of(WorkerBroken))
    assert "limits.worker_memory_bytes=536870912" in worker.of(WorkerBroken)[0].reason


def test_a_source_that_comes_back_starts_with_an_idr(start, tmp_path):
    """A file of one pass, over HTTP: its end is a source lost, and it is opened again."""
    write_clip(tmp_path / "pass.mp4", width=160, height=96, frames=20)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        worker = start(source=f"http://127.0.0.1:{server.server_port}/pass.mp4", keyframe_interval_s=10.0)
        worker.until(lambda w: w.of(Reconnecting))
        before = len(worker.video())
        worker.until(lambda w: len(w.video()) >= before + 10)
        server.shutdown()
        thread.join()
    lost = worker.messages.index(worker.of(Reconnecting)[0])
    back = [m for m in worker.messages[lost:] if isinstance(m, VideoPacket)]
    late = [n for n, packet in enumerate(back[:10]) if packet.keyframe]
    assert late, "no IDR among the first pictures of the source that came back"
    pts = [packet.pts for packet in worker.video()]
    assert pts == sorted(set(pts))
    assert worker.of(Reconnecting)[0].opening == 1
    assert back[-1].opening > 1


def test_a_worker_goes_on_above_the_timestamps_of_the_one_before(start, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=50, audio="aac")
    ahead_s = time.monotonic() + 5
    worker = start(source=str(path), video_after=round(ahead_s * 90_000), sound_after=round(ahead_s * 48_000))
    worker.until(lambda w: len(w.video()) >= 10 and len(w.of(AudioPacket)) >= 5)
    pts = [packet.pts for packet in worker.video()]
    assert pts == sorted(set(pts))
    assert pts[0] > round(ahead_s * 90_000)
    assert all(packet.pts >= round(ahead_s * 48_000) for packet in worker.of(AudioPacket))


def test_a_file_that_does_not_loop_ends_the_stream(start, tmp_path):
    path = write_clip(tmp_path / "short.mp4", width=160, height=96, frames=30, audio="aac")
    worker = start(source=str(path), loop=False).until(lambda w: w.of(JobImpossible))
    assert worker.of(JobImpossible)[0].reason == "the source has ended"
    shown = [number for number in numbers(worker.video(), 2) if number is not None]
    assert shown[-1] == 29, "also what the decoder still held at the end"


def test_broken_sound_is_no_picture_that_is_not_shown(start, clip, tmp_path):
    noisy = tmp_path / "noisy.ts"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", clip, "-t", "4", "-c", "copy"]
    subprocess.run([*ffmpeg, "-bsf:a", "noise=amount=3", noisy], check=True)
    worker = start(source=str(noisy))
    worker.until(lambda w: len(w.video()) > 25 and any(drop.reason == "corrupt" for drop in w.of(Dropped)))
    assert all(drop.sound for drop in worker.of(Dropped) if drop.reason in ("corrupt", "overlap"))


def test_an_unreachable_source_is_tried_again_and_the_worker_lives(start):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        port = nobody.getsockname()[1]
        worker = start(source=f"rtsp://127.0.0.1:{port}/cam").until(lambda w: len(w.of(Reconnecting)) >= 2)
    retries = worker.of(Reconnecting)
    assert "Connection refused" in retries[0].reason
    assert 0 < retries[0].retry_in_s < 1
    assert retries[1].retry_in_s > retries[0].retry_in_s
    assert worker.process.poll() is None


def test_a_size_change_is_announced_and_starts_with_an_idr(start, tmp_path):
    parts = [
        write_clip(tmp_path / "a.h264", width=160, height=96, frames=15),
        write_clip(tmp_path / "b.h264", width=200, height=120, frames=15),
    ]
    whole = tmp_path / "both.h264"
    whole.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    worker = start(source=str(whole)).until(lambda w: len(w.of(Opened)) >= 3)
    worker.until(lambda w: len(w.video()) >= 40)
    assert [(o.output.width, o.output.height) for o in worker.of(Opened)[:3]] == [
        (320, 192),
        (400, 240),
        (320, 192),
    ]
    for opened in worker.of(Opened):
        rest = worker.messages[worker.messages.index(opened) :]
        following = [m for m in rest if isinstance(m, VideoPacket)]
        assert not following or following[0].keyframe


def test_an_odd_422_10_bit_source_with_wide_pixels_plays(start, tmp_path):
    path = write_clip(
        tmp_path / "odd.mkv",
        width=161,
        height=97,
        pixel_format="yuv444p10le",
        aspect=Fraction(4, 3),
        frames=20,
    )
    worker = start(source=str(path)).until(lambda w: len(w.video()) >= 10)
    [opened] = worker.of(Opened)
    assert (opened.source.width, opened.source.height) == (161, 97)
    assert (opened.output.width, opened.output.height) == (322, 194)
    assert (opened.source.pixel_format, opened.source.sample_aspect_ratio) == ("yuv444p10le", (4, 3))
    assert not opened.audio
    decoder = av.CodecContext.create("h264", "r")
    frame = next(f for p in worker.video()[:5] for f in decoder.decode(av.Packet(p.payload)))
    assert (frame.width, frame.height, str(decoder.sample_aspect_ratio)) == (322, 194, "4/3")
