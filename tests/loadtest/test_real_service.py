"""The load test against the real service."""

import json

import pytest

from loadtest.__main__ import main
from tests.peers.service import running


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Address of a service with a small running stream, `pattern`."""
    with (
        running(tmp_path_factory.mktemp("service")) as service,
        service.stream("pattern", "synthetic:?size=128x96&fps=15"),
    ):
        service.wait_for("pattern", "running")
        yield service.url


def test_viewers(stream, capsys, monkeypatch):
    monkeypatch.setattr("loadtest.viewers.BASELINE_S", 2.0)
    status = main(
        ["viewers", "--url", stream, "--stream", "pattern", "--count", "4", "--duration", "3", "--json"]
    )

    seen = json.loads(capsys.readouterr().out)
    assert status == 0
    assert seen["joined"] == 4
    assert seen["join_s"]["max"] < 10
    assert seen["frames_per_s"]["min"] > 5
    assert seen["loss_ratio"] < 0.01
    assert seen["server_cpu_during"] > 0


def test_soak(stream, capsys, monkeypatch):
    monkeypatch.setattr("loadtest.soak.STAY_S", (1.0, 2.0))
    monkeypatch.setattr("aioice.ice.get_host_addresses", None)  # put back afterwards
    options = ["--minutes", "0.1", "--viewers", "2", "--max-growth", "1"]

    status = main(["soak", "--url", stream, "--stream", "pattern", *options, "--json"])

    seen = json.loads(capsys.readouterr().out)
    assert status == 0
    assert seen["sessions"] >= 4
    assert seen["failed"] == 0
    assert all(growth["first_bytes"] > 10e6 for growth in seen["growth"].values())
