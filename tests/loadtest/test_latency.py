"""`livesr-loadtest latency`: a number drawn is a number read, through the real service too."""

import json

import numpy as np
import pytest

from loadtest.__main__ import main
from loadtest.latency import Pair, Report, render
from loadtest.numbered_source import draw, read
from loadtest.viewers import Spread
from loadtest.ways import WAYS_IN
from tests.peers.service import running
from tests.ports import free_port


@pytest.mark.parametrize("number", [0, 1, 0b1010101010101010, 40_000, 65_535])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (320, 180), (854, 480)])
def test_a_number_survives_upscaling_and_noise(number, width, height):
    upscaled = draw(number, width, height).repeat(2, axis=0).repeat(2, axis=1)
    noise = np.random.default_rng(number).normal(0, 12, upscaled.shape)

    assert read(np.clip(upscaled + noise, 0, 255).astype(np.uint8)) == number


def test_a_picture_without_a_number_is_told():
    assert read(np.full((180, 320), 128, np.uint8)) is None


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_the_services_figure_is_the_true_one(way_in, service, capsys, monkeypatch):
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    options = ["--size", "128x96", "--fps", "15", "--duration", "5", "--port", str(free_port())]

    status = main(["latency", "--url", service.url, "--in", way_in, *options, "--json"])

    seen = json.loads(capsys.readouterr().out)
    assert service.http.get("/api/streams").json() == []
    assert status == 0
    assert [(pair["way_in"], pair["way_out"]) for pair in seen["pairs"]] == [
        (way_in, "whep"),
        (way_in, "hls"),
    ]
    for pair in seen["pairs"]:
        assert pair["frames_seen"] > 0.5 * pair["frames_sent"] > 15
        assert 0 < pair["true_s"]["p50"] < 5
        # Half a frame interval on a calm machine; two of them on one that runs every other test as well. What
        # the service remembers from before the measured time counts for segments, which it is long of.
        if way_in != "hls":
            assert abs(pair["difference_s"]["p50"]) < 2 / 15


def test_what_is_printed_has_a_line_for_each_pair():
    spread = Spread(min=0.01, p50=0.02, p95=0.03, max=0.04)
    pair = Pair(
        way_in="udp",
        way_out="whep",
        frames_sent=500,
        frames_seen=499,
        true_s=spread,
        service_s={"p50": 0.018, "p95": 0.025, "p99": 0.03},
        difference_s={"p50": 0.002, "p95": 0.005},
        alone_s=0.015,
        above_alone_s=0.005,
    )
    lines = render(Report(size="320x180", fps=25, pairs=[pair, pair])).splitlines()
    assert "a frame lasts 40" in lines[0]
    assert lines[2] == lines[3]
    figures = [float(word) for word in lines[2].split()[5:]]
    assert lines[2].split()[:5] == ["udp", "whep", "499", "of", "500"]
    assert figures == [20, 30, 18, 25, 2, 5, 5]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--in", "udp,rist"], "--in udp,rist: 'rist' must be one of udp, srt, rtmp, rtsp, hls, whip"),
        (["--out", ""], "--out : '' must be one of whep, hls"),
    ],
)
def test_an_unknown_way_is_one_clear_line(options, error, capsys):
    assert main(["latency", "--url", "http://127.0.0.1:9/", *options]) == 2
    assert capsys.readouterr().err == f"livesr-loadtest latency: {error}\n"


def test_a_wrong_size_is_one_clear_line(capsys):
    status = main(["latency", "--url", "http://127.0.0.1:9/", "--size", "321x180"])

    assert status == 2
    assert capsys.readouterr().err == (
        "livesr-loadtest latency: --size 321x180: must be even, from 64x64 to 3840x2160\n"
    )
