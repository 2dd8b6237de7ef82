"""`livesr-loadtest soak`: memory figures are the server's, and growth is told from warm-up."""

import json

import pytest

from loadtest import soak
from loadtest.__main__ import main
from loadtest.soak import Growth
from tests.loadtest.conftest import known


def test_viewers_come_and_go(whep_server, capsys, monkeypatch):
    monkeypatch.setattr(soak, "STAY_S", (1.0, 2.0))
    monkeypatch.setattr(soak, "SAMPLE_S", 0.5)
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    url = whep_server()

    options = ["--stream", "pattern", "--minutes", "0.1", "--viewers", "2", "--json"]
    status = main(["soak", "--url", url, *options])

    seen = json.loads(capsys.readouterr().out)
    assert seen["sessions"] >= 6
    assert seen["failed"] == 0
    assert seen["errors"] == []
    assert seen["growth"]["workers"] == {"first_bytes": 50e6, "last_bytes": 50e6, "ratio": 0}
    assert seen["growth"]["gateway"]["last_bytes"] > 20e6
    assert seen["gateway_files"]["last"] > 3
    assert status == (0 if seen["growth"]["gateway"]["ratio"] <= 0.02 else 1)
    assert known(url, "sessions") == 0


def test_growth_leaves_the_warm_up_out():
    warm_up, flat = [10.0, 50.0, 80.0, 90.0], [100.0] * 11

    assert Growth.of(warm_up + flat + [110.0] * 5).ratio == pytest.approx(0.10)
    assert Growth.of(warm_up + flat + [100.0, 100.0, 100.0, 130.0, 130.0]).ratio == 0  # a spike


def test_growth_of_a_single_sample():
    assert Growth.of([100.0]).ratio == 0
