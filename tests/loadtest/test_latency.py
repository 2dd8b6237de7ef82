"""`livesr-loadtest latency`: a number drawn is a number read, through the real service too."""

import json

import numpy as np
import pytest

from loadtest.__main__ import main
from loadtest.numbered_source import draw, read
from tests.peers.service import free_port, running


@pytest.mark.parametrize("number", [0, 1, 0b1010101010101010, 40_000, 65_535])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (320, 180), (854, 480)])
def test_a_number_survives_upscaling_and_noise(number, width, height):
    upscaled = draw(number, width, height).repeat(2, axis=0).repeat(2, axis=1)
    noise = np.random.default_rng(number).normal(0, 12, upscaled.shape)

    assert read(np.clip(upscaled + noise, 0, 255).astype(np.uint8)) == number


def test_a_picture_without_a_number_is_told():
    assert read(np.full((180, 320), 128, np.uint8)) is None


def test_glass_to_glass_through_the_service(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("aioice.ice.get_host_addresses", None)  # put back afterwards
    with running(tmp_path) as service:
        options = ["--size", "128x96", "--fps", "15", "--duration", "2", "--udp-port", str(free_port())]

        status = main(["latency", "--url", service.url, *options, "--json"])

        seen = json.loads(capsys.readouterr().out)
        assert service.http.get("/api/streams").json() == []
    assert status == 0
    assert 0.02 < seen["latency_s"]["p50"] < 2
    assert seen["frames_seen"] > 0.5 * seen["frames_made"] > 10


def test_a_wrong_size_is_one_clear_line(capsys):
    status = main(["latency", "--url", "http://127.0.0.1:9/", "--size", "321x180"])

    assert status == 2
    assert capsys.readouterr().err == (
        "livesr-loadtest latency: --size 321x180: must be even, from 64x64 to 3840x2160\n"
    )
