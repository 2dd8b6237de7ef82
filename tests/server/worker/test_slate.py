"""What is seen and heard while the source is away, by the worker's real process and frame by frame."""

import dataclasses
import functools
import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from server.wire.logs import get_logger
from server.wire.messages import AudioFormat, AudioPacket, Heartbeat, Opened, Reconnecting, VideoPacket, Watch
from server.worker.encode.adts import audio_specific_config
from server.worker.encode.audio import SoundOrder
from server.worker.encode.slate import Slate, dark_frame, dimmed, letterboxed, load_image
from server.worker.process.picture import ColourTags, PictureFormat, plane_view
from server.worker.worker import open_slate
from tests.server.clips import write_clip
from tests.server.worker.worker_process import JOB, WorkerProcess, numbers

SINCE = datetime(2026, 3, 4, 14, 3, 20, tzinfo=UTC)
FORM = PictureFormat(
    codec="h264", pixel_format="yuv420p", width=320, height=180, fps=25, sample_aspect_ratio=(1, 1),
    tags=ColourTags(range=1, matrix=1, primaries=1, transfer=1),
)  # fmt: skip


class Site:
    """A file of one pass over HTTP, whose end is a source lost; the server can go, and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = 0
        self.up()

    def up(self) -> None:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(self._folder))
        handler.func.log_message = lambda *_: None
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/pass.mp4"


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    write_clip(tmp_path / "pass.mp4", width=160, height=96, frames=50, audio="aac")
    site = Site(tmp_path)
    yield site
    site.down()


def seen(packets: list[VideoPacket]) -> list[np.ndarray]:
    """Luma of each frame, as a viewer sees it who was there from the first on."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet.payload))]
    return [plane_view(frame, 0).copy() for frame in [*frames, *decoder.decode(None)]]


def slates(worker: WorkerProcess) -> list[VideoPacket]:
    """Those behind the news of the loss."""
    lost = worker.messages.index(worker.of(Reconnecting)[0])
    return [m for m in worker.messages[lost:] if isinstance(m, VideoPacket) and m.slate]


def has_text(luma: np.ndarray) -> bool:
    """Whether something bright is written in the middle of the dark."""
    third = len(luma) // 3
    return luma[third : 2 * third].max() > 150 and luma[:third].max() < 130


def test_while_the_source_is_away_its_last_picture_is_dimmed_and_its_sound_silent(start, site):
    worker = start(source=site.url).until(lambda w: w.video())
    worker.until(lambda w: w.of(Reconnecting))
    site.down()
    before = len(worker.of(Reconnecting))
    worker.until(lambda w: len(w.of(Reconnecting)) > before and len(slates(w)) >= 8)
    site.up()
    slate = slates(worker)
    worker.until(lambda w: not w.video()[-1].slate)

    packets = worker.video()
    assert len(worker.of(Opened)) == 1, "the encoder stays the same"
    pts = [packet.pts for packet in packets]
    assert pts == sorted(set(pts))
    since = [packet.pts for packet in packets if packet.pts >= slate[0].pts]
    # A second, on a machine that has another one's time.
    assert max(b - a for a, b in pairwise(since)) < 2 * 90_000, "players always have something to play"
    pictures = dict(zip(pts, seen(packets), strict=True))
    assert has_text(pictures[slate[-1].pts])
    assert packets[-1].keyframe
    assert numbers(packets[-1:], 2) != [None], "the picture itself is back"

    first, last = slate[0].pts / 90_000, slate[-1].pts / 90_000
    for codec in ("aac", "opus"):
        sounds = [p for p in worker.of(AudioPacket) if p.codec == codec]
        assert all(b.pts >= a.pts + a.duration for a, b in pairwise(sounds))
        covered_s = sum(p.duration for p in sounds if first <= p.pts / 48_000 < last) / 48_000
        assert covered_s == pytest.approx(last - first, abs=0.7), codec


def test_nobody_watches_a_slate_that_nobody_made(start, site):
    """Who comes later sees at once where the source had got to, not what was upscaled last."""
    worker = start(source=site.url, watched=()).until(lambda w: w.of(Reconnecting))
    site.down()
    beats = len(worker.of(Heartbeat))
    worker.until(lambda w: len(w.of(Heartbeat)) >= beats + 4)
    assert not any(packet.slate for packet in worker.video())
    worker.send(Watch(renditions=("upscaled", "source")))
    worker.until(lambda w: len(slates(w)) >= 6 and w.video("source"))
    assert worker.video("source")[0].keyframe
    first = next(n for n, packet in enumerate(worker.video()) if packet.slate)
    assert worker.video()[first].keyframe
    shown = seen(worker.video()[first:])
    assert has_text(shown[-1])
    assert shown[-1].shape == (192, 320)
    worker.send(Watch(renditions=()))
    beats = len(worker.of(Heartbeat))
    worker.until(lambda w: len(w.of(Heartbeat)) >= beats + 1)
    made = len(worker.video())
    worker.until(lambda w: len(w.of(Heartbeat)) >= beats + 4)
    assert len(worker.video()) <= made + 1
    site.up()


def test_a_worker_whose_source_never_came_goes_on_with_the_slate_of_the_last(start, site):
    opened = start(source=site.url).until(lambda w: w.of(AudioPacket) and w.of(Opened)).of(Opened)[0]
    site.down()
    worker = start(source=site.url, opened=opened).until(lambda w: len(w.video()) >= 3 and w.of(AudioPacket))
    assert all(packet.slate for packet in worker.video())
    assert has_text(seen(worker.video())[-1])
    site.up()
    worker.until(lambda w: not w.video()[-1].slate)
    back = next(packet for packet in worker.video() if not packet.slate)
    assert back.keyframe
    pts = [packet.pts for packet in worker.video()]
    assert pts == sorted(set(pts))


def test_the_operators_image_is_shown_whole(tmp_path):
    path = tmp_path / "away.png"
    Image.new("RGB", (100, 100), (255, 255, 255)).save(path)
    frame = letterboxed(load_image(path), 640, 360, FORM)
    luma = plane_view(frame, 0)
    assert (frame.width, frame.height, frame.format.name) == (640, 360, "yuv420p")
    assert luma[5:-5, 145:495].min() > 225
    assert luma[:, :135].max() == luma[:, 505:].max() == 16
    wide = letterboxed(load_image(path), 640, 360, dataclasses.replace(FORM, sample_aspect_ratio=(2, 1)))
    assert plane_view(wide, 0)[180].tolist().count(16) > 440, "shown twice as wide, it is half as wide"
    for shape in ((60_000, 1), (1, 60_000)):
        odd = letterboxed(load_image(path), 640, 360, dataclasses.replace(FORM, sample_aspect_ratio=shape))
        assert plane_view(odd, 0).shape == (360, 640), "what no pixels are takes no gigabytes"
    slate = Slate(load_image(path)).frame("upscaled", dark_frame(640, 360), FORM, SINCE)
    assert plane_view(slate, 0).max() > 225


def test_a_dimmed_picture_is_still_seen_and_says_since_when():
    last = dark_frame(640, 360)
    plane_view(last, 0)[:] = np.linspace(16, 235, 640).astype(np.uint8)
    y = plane_view(dimmed(last, SINCE), 0)
    assert y[10, 0] == 16
    assert 80 < y[10, 639] < 100
    assert y[170:190].max() > 200
    other = plane_view(dimmed(last, SINCE.replace(second=21)), 0)
    changed = np.flatnonzero((y != other).any(0))
    assert len(changed), "the time is in it"
    assert changed.max() - changed.min() < 20, "by one digit"


def test_a_slate_that_is_no_image_is_named_and_does_without(tmp_path, caplog):
    path = tmp_path / "away.png"
    path.write_text("no image")
    log = get_logger("test")
    for slate in (str(path), str(tmp_path / "none.png")):
        made = open_slate(replace(JOB, slate=slate), log)
        assert slate in caplog.text
        assert plane_view(made.frame("source", dark_frame(320, 180), FORM, SINCE), 0).max() > 100


def test_silence_is_silent_and_keeps_time() -> None:
    for channels in (1, 2, 6):
        sent: list[AudioPacket] = []
        config = audio_specific_config(object_type=2, rate_hz=44_100, channels=channels)
        form = AudioFormat(config=config, rate_hz=44_100, channels=channels)
        order = SoundOrder()
        order.fill(100.0, form, sent.append)
        order.fill(100.5, form, sent.append)
        for codec in ("aac", "opus"):
            packets = [p for p in sent if p.codec == codec]
            assert packets[-1].pts + packets[-1].duration == pytest.approx(100.5 * 48_000, abs=1024)
            assert all(b.pts == a.pts + a.duration for a, b in pairwise(packets))
            decoder = av.CodecContext.create("libopus" if codec == "opus" else "aac", "r")
            if codec == "aac":
                decoder.extradata = config
            frames = [f for p in packets for f in decoder.decode(av.Packet(p.payload))]
            assert len(frames) > 20
            assert max(np.abs(frame.to_ndarray()).max() for frame in frames) == 0
