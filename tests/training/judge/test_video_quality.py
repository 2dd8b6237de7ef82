"""Video is judged frame by frame and from frame to frame, on LR as it is and as H.264 leaves it."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import live_config
from engine.frame import Colour, YuvFrame
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint
from server.__main__ import main
from tests.conftest import missing_peer
from training.data.resize import downscale
from training.judge.clip import H264, hr_frames, lr_frames, open_clip
from training.judge.contenders import Contender, UpscaleLuma, open_contender
from training.judge.perceived import Perception, perceptual_ffmpeg
from training.judge.video_quality import MAX_PSNR_DB, judge_video

WIDTH, HEIGHT, FRAMES = 96, 80, 6


def write_clip(path: Path, shift: int, *, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Texture that moves by so many pixels a frame: uncompressed, so that every frame is known."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (height // 4, width // 4))
    texture = np.kron(coarse, np.ones((4, 4))) + rng.normal(0, 4, (height // 4 * 4, width // 4 * 4))
    texture = np.pad(texture, ((0, height % 4), (0, width % 4)), mode="edge")
    chroma = bytes([100]) * (-(-width // 2) * -(-height // 2)) + bytes([150]) * (
        -(-width // 2) * -(-height // 2)
    )
    with path.open("wb") as out:
        out.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode())
        for index in range(FRAMES):
            frame = np.roll(texture, shift * index, axis=1).clip(16, 235).astype(np.uint8)
            out.write(b"FRAME\n" + frame.tobytes() + chroma)
    return path


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "moving.y4m", 2)


@pytest.fixture
def still(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "still.y4m", 0)


def contender(upscale: Callable[[YuvFrame], np.ndarray]) -> Contender:
    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        assert (width, height) == (WIDTH // 2, HEIGHT // 2)
        return upscale

    return replace(open_contender("bicubic", 2), name="test", open_video=open_video)


def perfect(clip: Path) -> Contender:
    frames = hr_frames(open_clip(clip, 2), FRAMES)
    return contender(lambda frame: next(frames).y)


def test_the_original_itself_is_perfect(moving: Path) -> None:
    ((result,),) = judge_video([perfect(moving)], open_clip(moving, 2), [None], 100)
    assert (result.frames, result.crf, result.bitrate_bps) == (FRAMES, None, None)
    assert result.psnr_db == MAX_PSNR_DB
    assert result.ssim == pytest.approx(1)
    assert result.flicker == 0


def test_a_still_clip_does_not_flicker_until_somebody_makes_it(still: Path) -> None:
    hr = next(hr_frames(open_clip(still, 2), 1)).y
    blinks = 0

    def blink(frame: YuvFrame) -> np.ndarray:
        nonlocal blinks
        blinks += 1
        return hr + np.uint8(4 * (blinks % 2))

    results = judge_video([open_contender("bicubic", 2), contender(blink)], open_clip(still, 2), [None], 100)
    (bicubic,), (blinking,) = results
    assert bicubic.flicker == 0
    assert bicubic.psnr_db < blinking.psnr_db
    assert blinking.flicker == pytest.approx(4)


def test_compression_costs_quality_and_saves_bits(moving: Path) -> None:
    ((plain, good, poor),) = judge_video(
        [open_contender("bicubic", 2)], open_clip(moving, 2), [None, 23, 40], 100
    )
    assert plain.psnr_db > good.psnr_db > poor.psnr_db
    assert plain.ssim > good.ssim > poor.ssim
    assert plain.bitrate_bps is None
    assert (good.crf, poor.crf) == (23, 40)
    assert good.bitrate_bps is not None
    assert poor.bitrate_bps is not None
    assert good.bitrate_bps > 1.5 * poor.bitrate_bps > 1000


def test_lr_is_matlabs_and_survives_the_codec_in_order(moving: Path) -> None:
    clip = open_clip(moving, 2)
    assert (clip.width, clip.height, clip.fps) == (WIDTH, HEIGHT, Fraction(25))
    hr, lr = list(hr_frames(clip, 4)), list(lr_frames(clip, 4))
    assert len(lr) == 4
    for big, small in zip(hr, lr, strict=True):
        assert np.array_equal(small.y, downscale(big.y, 2))
        assert (small.u[0, 0], small.v[0, 0]) == (100, 150)
    decoded = list(H264(WIDTH // 2, HEIGHT // 2, clip.fps, 1).through(iter(lr)))
    for before, after in zip(lr, decoded, strict=True):
        assert np.abs(before.y.astype(int) - after.y).max() <= 3


def test_every_kind_of_model_upscales_frames(moving: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "live.safetensors", Awsrn(live_config()), {})
    live = open_contender(str(tmp_path / "live.safetensors"), 2, "reference")
    compiled = open_contender(str(tmp_path / "live.safetensors"), 2, "openvino", "float32")
    lanczos = open_contender("lanczos", 2)
    clip = open_clip(moving, 2)
    lr = next(lr_frames(clip, 1))
    live_y, compiled_y, lanczos_y = (
        one.open_video(WIDTH // 2, HEIGHT // 2, clip.colour)(lr) for one in (live, compiled, lanczos)
    )
    assert live_y.shape == lanczos_y.shape == (HEIGHT, WIDTH)
    assert np.abs(live_y.astype(int) - compiled_y).max() <= 1
    # Through RGB and back, luma must be what enlarging luma alone gives.
    grey = np.repeat(lr.y[..., None], 3, axis=2)
    assert np.abs(lanczos_y.astype(int) - lanczos.upscale(grey)[..., 0]).max() <= 1


def test_vmaf_and_xpsnr_know_the_better_picture(tmp_path: Path) -> None:
    if perceptual_ffmpeg() is None:
        missing_peer("ffmpeg with libvmaf", "pip install imageio-ffmpeg")
    clip = write_clip(tmp_path / "clip.y4m", 2, width=192, height=160)

    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        frames = hr_frames(open_clip(clip, 2), FRAMES)
        return lambda frame: next(frames).y

    ideal = replace(open_contender("bicubic", 2), open_video=open_video)
    (best,), (bicubic,) = judge_video([ideal, open_contender("bicubic", 2)], open_clip(clip, 2), [40], 100)
    assert best.vmaf is not None
    assert bicubic.vmaf is not None
    assert best.vmaf > 90
    assert bicubic.vmaf < best.vmaf - 10
    assert best.vmaf_neg is not None
    assert bicubic.vmaf_neg is not None
    assert bicubic.vmaf_neg < best.vmaf_neg
    assert (best.xpsnr_db, bicubic.xpsnr_db) == (MAX_PSNR_DB, pytest.approx(bicubic.psnr_db, abs=6))


def test_vmaf_neg_does_not_pay_for_sharpening(tmp_path: Path) -> None:
    if perceptual_ffmpeg() is None:
        missing_peer("ffmpeg with libvmaf", "pip install imageio-ffmpeg")
    clip = open_clip(write_clip(tmp_path / "clip.y4m", 2, width=192, height=160), 2)

    def open_video(width: int, height: int, colour: Colour) -> UpscaleLuma:
        frames = hr_frames(clip, FRAMES)
        return lambda frame: (1.3 * (next(frames).y.astype(float) - 128) + 128).clip(0, 255).astype(np.uint8)

    harder = replace(open_contender("bicubic", 2), open_video=open_video)
    ((result,),) = judge_video([harder], clip, [None], 100)
    assert result.vmaf is not None
    assert result.vmaf_neg is not None
    assert result.vmaf > result.vmaf_neg + 0.5


def test_the_command_compares_with_the_interpolations(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = tmp_path / "live.safetensors"
    save_checkpoint(model, Awsrn(live_config()), {})
    options = ["--model", str(model), "--backend", "reference", "--video", str(moving), "--frames", "3"]
    options += ["--crf", "23", "--crf", "33"]
    files = ["--csv", str(tmp_path / "out.csv"), "--markdown", str(tmp_path / "out.md")]
    assert main(["evaluate", *options, "--json", *files]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in answer] == [str(model), "bicubic", "lanczos"]
    for one in answer:
        assert [result["crf"] for result in one["videos"]["moving.y4m"]] == [23, 33]
        assert all(result["frames"] == 3 for result in one["videos"]["moving.y4m"])
    lines = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(lines) == 6
    assert {line["crf"] for line in lines} == {"23", "33"}
    markdown = (tmp_path / "out.md").read_text().splitlines()
    # What is to be compared stands together: both CRFs, and in each all three.
    assert [line.split(" | ")[1] for line in markdown[2:]] == ["23"] * 3 + ["33"] * 3
    assert [line.split(" | ")[2] for line in markdown[3:5]] == ["bicubic", "lanczos"]


def test_unusable_clips_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text").touch()
    tiny = write_clip(tmp_path / "tiny.y4m", 0, width=48, height=30)
    for path, words in (
        (tmp_path / "text.mp4", "text.mp4 is no readable video"),
        (tmp_path / "empty.mp4", "empty.mp4 is no readable video"),
        (tmp_path / "none.mp4", "none.mp4 is no readable video"),
        (tiny, "tiny.y4m is 48×30; its LR must have at least 16×16 pixels"),
    ):
        assert main(["evaluate", "--model", "bicubic", "--scale", "2", "--video", str(path)]) == 2
        assert words in capsys.readouterr().err
    still_image = tmp_path / "image.y4m"
    still_image.write_bytes(write_clip(tmp_path / "clip.y4m", 0).read_bytes()[: -5 * (6 + 96 * 80 * 3 // 2)])
    clip = ["--model", "bicubic", "--scale", "2", "--video", str(still_image)]
    for options, words in (
        ([], "image.y4m has 1 frames, must have at least 2"),
        (["--frames", "1"], "--frames 1 must be at least 2"),
        (["--crf", "60"], "--crf [60] must be 0 to 51"),
        (["--note", "Mine."], "--note Mine. needs a --page"),
        (["--source-crf", "0"], "--source-crf 0 needs a --page"),
        (["--page", "a.md", "--json"], "--json can't be given with --page"),
        (["--page", "a.md", "--csv", "a.csv"], "--csv can't be given with --page"),
        (["--page", "a.md", "--set", f"A={tmp_path}"], "--set can't be given with --page"),
        (["--page", "a.md", "--source-crf", "52"], "--source-crf [52] must be 0 to 51"),
        (["--page", str(tmp_path / "page")], "page must end as .md does"),
        (["--page", str(tmp_path / "text.md")], "text, for its pictures, must be a folder"),
    ):
        assert main(["evaluate", *clip, *options]) == 2
        assert words in capsys.readouterr().err


def test_a_clip_that_begins_black_has_figures_but_vmaf_neg() -> None:
    ffmpeg = perceptual_ffmpeg()
    if ffmpeg is None:
        missing_peer("ffmpeg with libvmaf", "pip install imageio-ffmpeg")
    black = np.full((720, 1280), 16, np.uint8)
    with Perception(ffmpeg, 1280, 720, Fraction(25)) as perception:
        perception.add(black, black)
        seen = perception.score()
    assert seen.vmaf > 90
    assert seen.xpsnr_db == float("inf")
    assert seen.vmaf_neg is None
