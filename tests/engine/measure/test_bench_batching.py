import json

import pytest

from server.__main__ import main


def bench(*args: str) -> int:
    words = ["bench", "awsrn-live-x2", "--size", "32x32", "--seconds", "0.1", "--threads", "1"]
    return main([*words, *args])


def test_one_run_compares_sharing_with_having_and_batches_with_turns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench("--batching", "3", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["streams"]) for row in figures["rows"]] == [
        ("engine's own lanes", 1),
        ("shared", 1),
        ("in turns", 3),
        ("in batches", 3),
    ]
    assert all(row["frames_per_s"] > 0 and row["p95_s"] >= row["p50_s"] > 0 for row in figures["rows"])
    assert figures["batches"] == [1, 2, 4, 8]
    rates = [row["frames_per_s"] for row in figures["rows"]]
    assert figures["sharing"] == pytest.approx(rates[1] / rates[0])  # one round is its own median
    assert figures["batching"] == pytest.approx(rates[3] / rates[2])


def test_figures_of_streams_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--batching", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "batches of 1, 2, 4, 8" in lines[0]
    assert lines[4].startswith("   2 × in batches")
    assert lines[6].startswith("  batches / turns")


def test_what_takes_one_frame_at_a_time_has_no_batches(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--batching", "2", "--backend", "reference") == 2
    assert "backend='reference' takes one frame at a time" in capsys.readouterr().err
    assert bench("--batching", "0") == 2
    assert "--batching 0: must be at least 1 stream" in capsys.readouterr().err
