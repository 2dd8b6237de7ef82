"""Interlaced frames and frames that lie on their side, as players of files show them."""

import logging
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from server.wire.logs import get_logger
from server.worker.ingest.container import find_tracks, tracks_of
from server.worker.ingest.source import Times
from server.worker.process.decode import PictureDecoder
from server.worker.process.picture import Picture
from tests.server.clips import write_clip

MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ildct+ilme")
H264 = ("-c:v", "libx264", "-crf", "10", "-x264-params", "tff=1", "-flags", "+ildct+ilme")


def ffmpeg(*words: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def decode(path: Path, **options) -> Iterator[tuple[int, list[Picture]]]:
    """What each packet brings, with its number, which stands for the time at which it came."""
    with av.open(str(path)) as container:
        video, _ = find_tracks(container)
        decoder = PictureDecoder(
            tracks_of(video, None), max_size=(4096, 4096), on_drop=print,
            stamp=lambda pts, length, base, _: (round(pts * base * 90_000), round(length * base * 90_000)),
            log=get_logger("test"), **options,
        )  # fmt: skip
        for number, packet in enumerate(container.demux(video)):
            yield number, decoder.decode(packet, Times.at(number))


def pictures(path: Path, **options) -> list[Picture]:
    return [picture for _, made in decode(path, **options) for picture in made]


def combing(picture: Picture) -> float:
    """How much neighbouring lines differ beyond those of the same field."""
    y = picture.planes.y.astype(int)
    return float(np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2).mean())


@pytest.fixture(scope="module", params=[H264, MPEG2], ids=["h264", "mpeg2"])
def interlaced(request, tmp_path_factory) -> Path:
    """A second of a bar that moves from field to field: 25 frames, 50 fields."""
    path = tmp_path_factory.mktemp("interlaced") / "clip.ts"
    bar = "color=gray:s=320x192:r=50,drawbox=x=0:y=0:w=20:h=192:c=white:t=fill,scroll=h=0.02"
    ffmpeg("-f", "lavfi", "-i", bar, "-t", "1", "-vf", "tinterlace=interleave_top,setfield=tff",
           *request.param, "-bf", "2", "-pix_fmt", "yuv420p", path)  # fmt: skip
    return path


def test_interlaced_frames_become_one_progressive_picture_each(interlaced):
    raw, made = pictures(interlaced, deinterlace="off"), pictures(interlaced)
    assert len(made) == len(raw) == 25
    assert [picture.pts for picture in made] == [picture.pts for picture in raw]
    assert {picture.duration for picture in made} == {3600}
    assert [picture.arrival_ns for picture in made] == [picture.arrival_ns for picture in raw]
    assert made[0].format.fps == 25
    assert np.mean([combing(p) for p in made]) < 0.2 * np.mean([combing(p) for p in raw])


def test_each_field_becomes_a_picture_where_that_is_wanted(interlaced):
    made = pictures(interlaced, deinterlace="field")
    assert len(made) == 50
    assert {b.pts - a.pts for a, b in pairwise(made)} == {1800}
    assert {picture.duration for picture in made} == {1800}
    assert made[0].format.fps == 50
    moved = [np.abs(a.planes.y.astype(int) - b.planes.y).mean() for a, b in pairwise(made)]
    assert min(moved) > 0.2 * np.mean(moved), "something moves in each"


def test_progressive_frames_wait_for_none(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=6)
    assert all(len(made) == 1 for number, made in decode(path) if number < 6)


def test_an_interlaced_source_is_said_to_be_one_once(interlaced, caplog):
    with caplog.at_level(logging.INFO):
        pictures(interlaced)
    assert sum("interlaced" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_pictures_are_turned_as_ffmpeg_turns_them(tmp_path, degrees):
    lying, source = write_clip(tmp_path / "lying.mp4", width=160, height=96, frames=2), tmp_path / "in.mp4"
    with av.open(str(lying)) as read, av.open(str(source), "w") as written:
        video = written.add_stream_from_template(read.streams.video[0])
        video.set_display_rotation(degrees)
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                written.mux(packet)
    picture = pictures(source)[0]
    width, height = (96, 160) if degrees % 180 else (160, 96)
    assert (picture.format.width, picture.format.height) == (width, height)
    planes = np.frombuffer(ffmpeg("-i", source, "-frames:v", "1", "-f", "rawvideo", "-"), np.uint8)
    assert np.array_equal(picture.planes.y, planes[: width * height].reshape(height, width))
    ours = np.concatenate([picture.planes.u.ravel(), picture.planes.v.ravel()])
    assert np.array_equal(ours, planes[width * height :])
