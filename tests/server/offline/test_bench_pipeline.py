import json
import threading
from types import SimpleNamespace

import pytest

from engine.errors import DeviceFailed
from server.__main__ import main
from server.offline import bench_pipeline
from tests.server.clips import write_clip
from tests.server.worker.test_pipeline import picture
from tests.server.worker.test_surfaces import SurfaceEngine, surface_picture


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
    assert "outbox" not in {thread.name for thread in threading.enumerate()}, "nobody sends any more"


class SurfacesOnly(SurfaceEngine):
    def surface_lane(self):
        raise DeviceFailed("a lane of surfaces was asked for")


class File:
    """As NVDEC reads it, where it is asked to."""

    def __init__(self, clip, log, *, time_base, on_gpu):
        self.pictures = [(surface_picture if on_gpu else picture)(number) for number in range(30)]

    def run(self, put):
        for one in self.pictures:
            put(one)

    def close(self):
        pass


def test_where_the_service_keeps_pictures_on_the_gpu_so_does_the_benchmark(monkeypatch, capsys):
    """Its figures were of planes that went to the host and back, which nobody runs there."""
    monkeypatch.setattr(bench_pipeline, "WholeFile", File)
    monkeypatch.setattr(bench_pipeline, "choose", lambda *_: SimpleNamespace(backend="tensorrt"))
    size = picture(0).format.even_size
    monkeypatch.setattr(bench_pipeline, "load_engine", lambda *_, **__: SurfacesOnly(*size))
    assert bench(capsys, "--preset", "ultrafast")["on_gpu"] is False, "x264 reads the host's memory"
    monkeypatch.setattr(bench_pipeline, "choose_encoder", lambda *_: "h264_nvenc")
    main(["bench", "--pipeline"])
    assert "a lane of surfaces was asked for" in capsys.readouterr().err


def test_a_clip_too_short_to_measure_is_refused(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=5)
    assert main(["bench", "--pipeline", "--clip", str(clip)]) == 2
    assert "has 5 pictures; at least 20 are needed" in capsys.readouterr().err
