import json

import pytest

from server.__main__ import main
from tests.server.clips import write_clip


def bench(capsys, *args: object) -> dict:
    assert main(["bench", "--pipeline", "--seconds", "0.1", "--json", *map(str, args)]) == 0
    return json.loads(capsys.readouterr().out)


def test_engine_and_pipeline_are_measured_on_the_same_pictures(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=60)
    figures = bench(capsys, "--clip", clip, "--preset", "ultrafast")
    assert (figures["clip"], figures["frames_per_round"], figures["preset"]) == ("clip.mp4", 60, "ultrafast")
    assert figures["rounds"] >= 1
    engine, pipeline = figures["engine"], figures["pipeline"]
    assert figures["ratio"] == pytest.approx(pipeline["frames_per_s"] / engine["frames_per_s"])
    assert figures["ratio"] > 0
    assert pipeline["cpu_ms_per_frame"] > 0


def test_figures_for_people(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=30)
    assert main(["bench", "--pipeline", "--seconds", "0.1", "--clip", str(clip)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "160×96 → 320×192" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["engine", "pipeline", "ratio"]


def test_a_clip_too_short_to_measure_is_refused(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=5)
    assert main(["bench", "--pipeline", "--clip", str(clip)]) == 2
    assert "has 5 pictures; at least 20 are needed" in capsys.readouterr().err
