"""The load test against the real service."""

import json

import pytest

from loadtest.__main__ import main
from loadtest.http import use_token
from tests.peers.service import FOR_PEERS, running
from tests.peers.test_auth import ADMIN, guarded

__all__ = ["guarded"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Address of a service with a small running stream, `pattern`, and room for two more."""
    base = FOR_PEERS.replace("[limits]", "[limits]\nmax_streams = 3")
    with (
        running(tmp_path_factory.mktemp("service"), base=base) as service,
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
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    options = ["--minutes", "0.1", "--viewers", "2", "--max-growth", "1"]

    status = main(["soak", "--url", stream, "--stream", "pattern", *options, "--json"])

    seen = json.loads(capsys.readouterr().out)
    assert status == 0
    assert seen["sessions"] >= 4
    assert seen["failed"] == 0
    assert all(growth["first_bytes"] > 10e6 for growth in seen["growth"].values())


def test_overload(stream, capsys, monkeypatch):
    monkeypatch.setattr("loadtest.overload.CALM_S", 3.0)
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    options = ["--stream", "pattern", "--busy", "1", "--duration", "3", "--patience", "1"]

    status = main(["overload", "--url", stream, *options, "--json"])

    seen = json.loads(capsys.readouterr().out)
    assert status == 0, seen
    [course] = seen["streams"]
    assert course["viewer_frames_per_s"] > 5
    assert 0 < course["in_100_ms_ratio"] <= course["in_150_ms_ratio"] <= 1
    assert course["arrived_ratio"] > 0.5
    # The peers' service has no ladder.
    assert (course["steps"], course["lowest_level"]) == (0, 0)


def test_publishers_are_taken_as_far_as_there_is_room(stream, capsys, monkeypatch):
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    options = ["--count", "3", "--ramp", "4", "--duration", "2", "--size", "128x96"]

    status = main(["publishers", "--url", stream, *options, "--json"])

    seen = json.loads(capsys.readouterr().out)
    assert (seen["accepted"], status) == (2, 1)
    ((reason, times),) = seen["refused"].items()
    assert "limits.max_streams=3" in reason
    assert times == 1
    assert 0 < seen["first_frame_s"]["p50"] <= seen["first_frame_s"]["p95"] < 20
    assert seen["frames_lost"] < 0.5 * seen["frames_sent"]


@pytest.fixture
def forget_token():
    yield
    use_token("")


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_service_that_asks_for_a_token(guarded, capsys, monkeypatch, forget_token, by):
    monkeypatch.setattr("loadtest.viewers.BASELINE_S", 1.0)
    command = [
        "viewers",
        "--url",
        guarded.url,
        "--stream",
        "cam",
        "--count",
        "2",
        "--duration",
        "2",
        "--json",
    ]
    if by == "option":
        command += ["--token", ADMIN]
    else:
        monkeypatch.setenv("LIVESR_TOKEN", ADMIN)
    assert main(command) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["joined"] == 2
    assert ADMIN not in said.out + said.err


@pytest.mark.parametrize(
    "command", [["viewers", "--stream", "cam"], ["soak", "--stream", "cam"], ["latency"]]
)
def test_it_is_told_that_a_token_is_needed(guarded, capsys, command):
    assert main([*command, "--url", guarded.url]) == 2
    assert "401" in capsys.readouterr().err


def test_a_token_that_no_header_can_carry_is_not_shown(capsys):
    assert main(["latency", "--url", "http://127.0.0.1:1/", "--token", "secret\r\nX: y"]) == 2
    assert "secret" not in capsys.readouterr().err
