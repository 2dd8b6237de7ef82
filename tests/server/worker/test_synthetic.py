import itertools
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from server.wire.synthetic import SyntheticFormat, parse_synthetic
from server.worker.ingest.synthetic import (
    SyntheticSource,
    read_frame_number,
    synthetic_frame,
)
from server.worker.process.picture import frame_from_planes, plane_view


def test_url_gives_size_and_rate():
    assert parse_synthetic("synthetic:") == SyntheticFormat(width=320, height=180, fps=Fraction(25))
    form = parse_synthetic("synthetic:?size=640x360&fps=30000/1001")
    assert form == SyntheticFormat(width=640, height=360, fps=Fraction(30000, 1001))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("synthetic:?size=huge", "size='huge' must be like 320x180"),
        ("synthetic:?size=321x180", "width=321 must be even"),
        ("synthetic:?size=16x16", "width=16 must be even, from 80"),
        ("synthetic:?fps=0", "fps=0 must be from 1 to 240"),
        ("synthetic:?fps=1/0", "fps='1/0' must be like"),
        ("synthetic:?fps=1e999999999", "fps='1e999999999' must be like"),
        ("synthetic:?colour=red", "'colour' must be size or fps"),
    ],
)
def test_bad_urls_name_key_value_and_rule(url, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse_synthetic(url)


@pytest.mark.parametrize("size", [(80, 48), (320, 180), (642, 362)])
@pytest.mark.parametrize("number", [0, 1, 123_456_789, 2**32 - 1])
def test_number_is_read_back_also_when_upscaled(size, number):
    y = synthetic_frame(number, SyntheticFormat(width=size[0], height=size[1])).y
    assert read_frame_number(y) == number
    assert read_frame_number(y.repeat(2, 0).repeat(2, 1), scale=2) == number


def test_number_survives_hard_compression():
    form = SyntheticFormat()
    encoder, decoder = av.CodecContext.create("libx264", "w"), av.CodecContext.create("h264", "r")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 320, 180, "yuv420p", Fraction(25)
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "40"}
    read = []
    for number in range(1000, 1025):
        for packet in encoder.encode(frame_from_planes(synthetic_frame(number, form), 320, 180)):
            read += [read_frame_number(plane_view(f, 0)) for f in decoder.decode(packet)]
    assert read == list(range(1000, 1000 + len(read)))
    assert len(read) >= 20


def test_a_picture_without_a_number_gives_none():
    for level in (0, 16, 128, 255):
        assert read_frame_number(np.full((180, 320), level, np.uint8)) is None
    assert read_frame_number(np.zeros((8, 8), np.uint8)) is None


def test_source_is_real_time_and_its_numbers_tell_the_time():
    stop = threading.Event()
    source = SyntheticSource(SyntheticFormat(fps=Fraction(50)), stop=stop)
    tracks = source.open()
    numbers, samples = [], []
    for arrival in source.arrivals():
        if arrival.video:
            [frame] = tracks.video.decode(arrival.packet)
            number = read_frame_number(plane_view(frame, 0))
            assert number is not None
            assert (
                0 <= arrival.times.arrival_ns / 1e9 - number / 50 < 1
            )  # how old it is, on this machine's clock
            numbers.append(number)
        else:
            samples.append((arrival.packet.pts, arrival.packet.duration))
        if len(numbers) == 30:
            stop.set()
    assert numbers == list(range(numbers[0], numbers[0] + 30))
    assert all(b[0] == a[0] + a[1] for a, b in itertools.pairwise(samples))
    assert samples[-1][0] / 48_000 == pytest.approx(numbers[-1] / 50, abs=0.1)
    assert time.monotonic() - numbers[0] / 50 > 29 / 50
