"""The page on video compares what viewers get for a bitrate, by the encoder that the service has."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.frame import Colour
from server.__main__ import main
from server.settings.stream import PipelineOptions
from server.worker.encode.h264 import EncoderFormat, _x264_options
from server.worker.process.picture import ColourTags
from tests.training.judge.test_video_quality import write_clip
from training.judge.clip import H264, hr_frames, open_clip
from training.judge.contenders import UpscaleLuma, open_contender
from training.judge.delivered import PRESET, SOURCE, deliver


def test_it_is_the_services_encoder() -> None:
    form = EncoderFormat(
        encoder="libx264",
        preset=PipelineOptions().preset,
        width=64,
        height=64,
        fps=25,
        bitrate_bps=10**6,
        keyframe_interval_s=2,
        sample_aspect_ratio=(1, 1),
        tags=ColourTags(range=0, matrix=2, primaries=2, transfer=2),
    )
    theirs = _x264_options(form)
    for name, value in H264(64, 64, 25, int(theirs["crf"]), PRESET)._options.items():
        assert theirs[name] == value


def test_the_original_upscaled_beats_lanczos_at_every_bitrate(tmp_path: Path) -> None:
    clip = open_clip(write_clip(tmp_path / "clip.y4m", 2, width=192, height=160), 2)

    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        frames = hr_frames(clip, 6)
        return lambda frame: next(frames).y

    lanczos = open_contender("lanczos", 2)
    ideal = replace(lanczos, name="ideal", open_video=open_video)
    comparison = deliver([lanczos, ideal], clip, 23, (20, 40), 6)
    assert [way.name for way in comparison.ways] == [SOURCE, "lanczos", "ideal"]
    source, plain, best = ([rate.result for rate in way.rates] for way in comparison.ways)
    for results in (source, plain, best):
        assert [result.crf for result in results] == [20, 40]
        assert results[0].bitrate_bps > results[1].bitrate_bps
        assert results[0].psnr_db > results[1].psnr_db
    assert best[0].psnr_db > plain[0].psnr_db + 3
    assert source[0].bitrate_bps < plain[0].bitrate_bps  # a quarter of the pixels
    assert all(rate.picture.shape == comparison.hr.shape for way in comparison.ways for rate in way.rates)


def test_one_command_writes_page_plots_and_crops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.y4m", 2)
    page = tmp_path / "video.md"
    words = ["--model", "awsrn-live-tiny-x2", "--video", str(clip), "--frames", "3", "--crf", "20"]
    assert main(["evaluate", *words, "--crf", "36", "--page", str(page)]) == 0
    text = page.read_text()
    assert str(tmp_path) not in text
    again = "livesr evaluate --model awsrn-live-tiny-x2 --video clip.y4m --crf 20 --crf 36 --frames 3"
    assert f"Written by `{again} --source-crf 23 --page video.md`" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| awsrn-live-tiny-x2 | ")]
    assert [line[1] for line in lines] == [SOURCE, "lanczos", "20", "36"]
    for picture in ("clip.png", "crops-clip-x2.png"):
        assert f"(video/{picture})" in text
        assert (tmp_path / "video" / picture).stat().st_size > 5_000
