"""`livesr-loadtest viewers` says of a server what is true of it."""

import json

import aioice.ice
import pytest

from loadtest.__main__ import main
from loadtest.swarm import failed, run_viewers
from loadtest.viewer import ViewerReport, gather_loopback_too, is_key_frame
from loadtest.viewers import Spread, render, summarise
from tests.loadtest.conftest import known


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("loadtest.viewers.BASELINE_S", 1.0)
    monkeypatch.setattr("loadtest.swarm.START_S", 2.0)
    monkeypatch.setattr("loadtest.swarm.SETTLE_S", 1.0)


def measure(capsys, url: str, *options: str) -> tuple[int, dict]:
    common = ["--stream", "pattern", "--duration", "2", "--json"]
    status = main(["viewers", "--url", url, *common, *options])
    return status, json.loads(capsys.readouterr().out)


def test_viewers_get_every_frame(whep_server, capsys):
    url = whep_server()

    status, seen = measure(capsys, url, "--count", "3")

    assert status == 0
    assert seen["joined"] == 3
    assert 0 < seen["join_s"]["min"] <= seen["join_s"]["max"] < 5
    assert seen["frames_per_s"]["p50"] == pytest.approx(25, abs=1.5)
    assert seen["longest_gap_s"]["max"] < 2
    assert seen["packets_received"] > 3 * 2 * 25
    assert seen["packets_lost"] == 0
    assert seen["server_cpu_per_viewer"] > 0
    assert known(url, "sessions") == 0  # each has said goodbye


def test_lost_packets_are_reported(whep_server, capsys):
    url = whep_server("--lose", "20")

    status, seen = measure(capsys, url, "--count", "1")

    assert status == 0
    assert seen["packets_lost"] > 3
    assert seen["packets_lost"] == pytest.approx(known(url, "lost"), abs=2)
    assert seen["loss_ratio"] == pytest.approx(1 / 20, abs=0.02)
    assert seen["frames_per_s"]["max"] < 24  # a frame with a hole in it is none


def test_more_viewers_than_one_process_carries(whep_server, capsys, monkeypatch):
    monkeypatch.setattr("loadtest.swarm.VIEWERS_PER_PROCESS", 2)

    status, seen = measure(capsys, whep_server(), "--count", "4", "--ramp", "4")

    assert status == 0
    assert seen["joined"] == seen["viewers"] == 4


def test_who_is_refused_has_not_joined(whep_server, capsys):
    status, seen = measure(capsys, whep_server(), "--count", "2", "--duration", "1", "--stream", "refused")

    assert status == 1
    assert (seen["viewers"], seen["joined"]) == (2, 0)
    assert seen["join_s"] is seen["frames_per_s"] is None
    assert list(seen["errors"].values()) == [2]
    assert "answered 503 full" in next(iter(seen["errors"]))


def test_who_gets_no_picture_says_so_and_leaves(whep_server, monkeypatch):
    monkeypatch.setattr("loadtest.viewer.JOIN_TIMEOUT_S", 1.5)
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    url = whep_server("--no-media")

    [report] = run_viewers(url, "pattern", joins_at_s=[0], from_s=0, until_s=0)

    assert report.error == "no key frame within 1.5 s (connection is connected)"
    assert report.join_s is None
    assert known(url, "sessions") == 0


def test_text_report():
    saw = ViewerReport(
        join_s=0.25,
        window_s=10,
        frames=250,
        longest_gap_s=0.08,
        packets_received=999,
        packets_lost=1,
    )
    known = {"duration_s": 10, "server_cpu_before": 0.1, "server_cpu_during": 0.2, "loadtest_cpu": 0.3}

    text = render(summarise([saw, saw, failed("full")], url="http://h/", stream="pattern", **known))

    assert text.splitlines() == [
        "viewers         2 of 3 see pattern, measured for 10 s",
        "join            min 0.25  p50 0.25  p95 0.25  max 0.25  s from POST to the first whole key frame",
        "frame rate      min 25.0  p50 25.0  p95 25.0  max 25.0  frames/s",
        "longest gap     min 0.08  p50 0.08  p95 0.08  max 0.08  s between two frames",
        "loss            0.100% of 2000 packets",
        "server CPU      5.00% of a core per viewer (10.0% before, 20.0% with 2)",
        "load test CPU   30.0% of a core",
        "error           1 × full",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "nope"], "no stream 'nope' at {url}; there are: pattern, refused"),
        (["--stream", "pattern", "--count", "0"], "--count 0: must be greater than 0"),
    ],
)
def test_a_wrong_call_is_one_clear_line(whep_server, capsys, options, message):
    url = whep_server()

    status = main(["viewers", "--url", url, *options])

    assert status == 2
    assert capsys.readouterr().err == f"livesr-loadtest viewers: {message.format(url=url)}\n"


@pytest.mark.parametrize("command", ["viewers", "soak"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8080", "--url 127.0.0.1:8080: must look like http://HOST:PORT/"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/api/streams/x can't be reached: "),
    ],
)
def test_no_service_there(capsys, command, url, message):
    status = main([command, "--url", url, "--stream", "x"])

    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith(f"livesr-loadtest {command}: {message}")
    assert error.count("\n") == 1


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(min=1.0, p50=2.0, p95=3.0, max=3.0)
    assert Spread.of([7.0]) == Spread(min=7.0, p50=7.0, p95=7.0, max=7.0)
    assert Spread.of(range(101)).p95 == 95


@pytest.mark.parametrize(
    ("annex_b", "key"),
    [
        (b"\0\0\0\1\x67sps\0\0\0\1\x68pps\0\0\1\x65idr", True),
        (b"\0\0\0\1\x61slice\0\0\1\x41\x65", False),
        (b"\0\0\1", False),
        (b"", False),
    ],
)
def test_key_frames_are_told_by_their_slices(annex_b, key):
    assert is_key_frame(annex_b) is key


def test_a_service_on_this_machine_may_offer_any_of_its_addresses(monkeypatch):
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: ["192.0.2.7"])

    gather_loopback_too()

    assert aioice.ice.get_host_addresses(True, True) == ["127.0.0.1", "192.0.2.7"]
