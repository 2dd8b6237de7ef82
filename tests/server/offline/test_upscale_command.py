"""`livesr upscale`, called as a user calls it."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import AwsrnConfig, live_config
from engine.load import load_net
from engine.net import upscale_image
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint
from server.__main__ import main
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.picture import plane_view
from tests.server.clips import write_clip


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Untrained networks: one of luma, one of RGB."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    rgb = AwsrnConfig(scale=3, lfbs=1, awrus=1, features=8, block_features=8, kernels=(3,))
    paths = {"y": folder / "y.safetensors", "rgb": folder / "rgb.safetensors"}
    save_checkpoint(paths["y"], skip_network(Awsrn(live_config(awrus=1))), {"recipe": "none"})
    save_checkpoint(paths["rgb"], Awsrn(rgb), {"recipe": "none"})
    return paths


def skip_network(network: Awsrn) -> Awsrn:
    """Repeats pixels, give or take some levels, so that frame numbers stay legible."""
    with torch.no_grad():
        for alpha in network.tail.alphas.values():
            alpha *= 0.02
        weight = torch.zeros(1, 4, 1, 3, 3)
        weight[:, :, :, 1, 1] = 1
        network.skip.weight = weight.flatten(0, 1)
        network.skip.bias.zero_()
    return network


def run(*args: object) -> int:
    return main(["upscale", *map(str, args)])


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def test_a_video_keeps_every_frame_its_times_and_its_sound(tmp_path, models, capsys):
    source = write_clip(tmp_path / "in.mp4", width=160, height=96, frames=60, audio="aac", b_frames=2)
    target = tmp_path / "out.mp4"
    assert run(source, target, "--model", models["y"], "--preset", "ultrafast", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["width"], report["height"], report["frames"], report["model"]) == (320, 192, 60, "y")
    assert report["packets_dropped"] == {}
    before, after = decoded(source), decoded(target)
    assert [read_frame_number(plane_view(f, 0), 2) for f in after] == list(range(60))
    assert [f.pts * f.time_base for f in after] == [f.pts * f.time_base for f in before]
    assert after[0].width == 320
    assert sound(source) == sound(target)
    assert len(sound(target)) > 100
    assert list(tmp_path.glob(".*")) == []


def test_variable_rate_shape_and_colours_are_kept(tmp_path, models):
    pts = [0, 3000, 4500, 13500, 13800, 90000, 93003]
    source = write_clip(
        tmp_path / "in.mp4",
        width=161,
        height=97,
        frames=7,
        pixel_format="yuv444p",
        pts=pts,
        time_base=Fraction(1, 90_000),
        aspect=Fraction(16, 11),
        tags=(2, 6, 5, 6),
    )
    target = tmp_path / "out.mp4"
    assert run(source, target, "--model", models["y"]) == 0
    frames = decoded(target)
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
    assert [f.pts * f.time_base * 90_000 for f in frames] == pts
    assert (frames[0].width, frames[0].height) == (322, 194)
    tags = [frames[0].color_range, frames[0].colorspace, frames[0].color_primaries, frames[0].color_trc]
    assert tags == [2, 6, 5, 6]


def test_a_video_taken_upright_stays_upright(tmp_path, models):
    lying, source, target = (tmp_path / f"{name}.mp4" for name in ("lying", "in", "out"))
    write_clip(lying, width=160, height=96, frames=3)
    with av.open(str(lying)) as read, av.open(str(source), "w") as written:
        video = written.add_stream_from_template(read.streams.video[0])
        video.set_display_rotation(90)
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                written.mux(packet)
    assert run(source, target, "--model", models["y"]) == 0
    frame = decoded(target)[0]
    assert (frame.width, frame.height, frame.rotation) == (192, 320, 0)
    upright = np.rot90(decoded(lying)[0].to_ndarray(format="gray"), 1)
    assert np.abs(frame.to_ndarray(format="gray")[::2, ::2].astype(int) - upright).mean() < 10


@pytest.mark.parametrize("kind", ["y", "rgb"])
@pytest.mark.parametrize("backend", ["reference", "openvino"])
def test_an_image_is_exactly_the_networks_output(tmp_path, models, kind, backend):
    rgb = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "in.png")
    target = tmp_path / "out.png"
    precision = ["--precision", "float32"]
    assert run(tmp_path / "in.png", target, "--model", models[kind], "--backend", backend, *precision) == 0
    net = load_net(models[kind], backend=backend, precision="float32")
    with Image.open(target) as image:
        assert np.array_equal(np.asarray(image), upscale_image(net, rgb))


def test_a_turned_jpeg_comes_out_upright(tmp_path, models):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    Image.new("RGB", (40, 20), (200, 100, 50)).save(tmp_path / "in.jpg", exif=exif)
    assert run(tmp_path / "in.jpg", tmp_path / "out.png", "--model", models["y"]) == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (40, 80)


def test_an_existing_file_is_only_replaced_when_asked(tmp_path, models, capsys):
    source = write_clip(tmp_path / "in.mp4", width=160, height=96, frames=3)
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    assert run(source, target, "--model", models["y"]) == 2
    assert "out.mp4: exists; --force replaces it" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run(source, target, "--model", models["y"], "--force") == 0
    assert len(decoded(target)) == 3


@pytest.mark.parametrize(
    ("make", "target", "options", "message"),
    [
        (lambda p: None, "out.mp4", [], "in.mp4: no such file"),
        (lambda p: p.write_text("no film" * 100), "out.mp4", [], "in.mp4: is no media file"),
        (lambda p: write_clip(p, frames=2), "out.mp4", ["--model", "nonsense"], "nonsense"),
        (lambda p: write_clip(p, frames=2), "out.xyz", [], "out.xyz: ending '.xyz' must be a video"),
        (lambda p: write_clip(p, frames=2), "out", [], "out: ending '' must be a video format, like .mp4"),
        (lambda p: write_clip(p, frames=2), "no/out.mp4", [], "out.mp4: no such folder"),
        (lambda p: write_clip(p, frames=2), "in.mp4", ["--force"], "is the input itself"),
        (lambda p: write_clip(p, frames=2), "out.mp4", ["--crf", "60"], "--crf=60 must be from 0 to 51"),
        (lambda p: write_clip(p, frames=2), "out.mp4", ["--preset", "warp"], "preset='warp' must be"),
        (lambda p: write_clip(p, frames=2), "out.mp4", ["--threads", "-3"], "threads=-3 must be from 0"),
        (lambda p: write_clip(p, frames=2), "out.mp4", ["--backend", "abacus"], "backend='abacus'"),
    ],
)
def test_errors_are_one_clear_line_and_leave_nothing_behind(
    tmp_path, models, capsys, make, target, options, message
):
    source = tmp_path / "in.mp4"
    make(source)
    before = sorted(tmp_path.iterdir())
    assert run(source, tmp_path / target, "--model", models["y"], *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert ".partial" not in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("in.png", "out.jpg", "an image is written as .png"),
        ("clear.png", "out.png", "has transparency"),
        ("broken.png", "out.png", "is no image"),
        ("cut.png", "out.png", "is damaged"),
        ("bomb.bmp", "out.png", "is damaged (Image size (1073676289 pixels) exceeds limit"),
    ],
)
def test_errors_of_images(tmp_path, models, capsys, name, target, message):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    Image.new("RGBA", (20, 20)).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "in.png").read_bytes()[:5000])
    Image.new("RGB", (2, 2)).save(tmp_path / "bomb.bmp")
    bomb = bytearray((tmp_path / "bomb.bmp").read_bytes())
    bomb[18:26] = (32_767).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(bomb)
    assert run(tmp_path / name, tmp_path / target, "--model", models["y"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / target).exists()


def test_a_file_cut_off_is_done_as_far_as_it_goes_and_that_is_said(tmp_path, models, capsys):
    whole = write_clip(tmp_path / "whole.mkv", width=160, height=96, frames=50)
    source = tmp_path / "cut.mkv"
    data = bytearray(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    rng = np.random.default_rng(0)
    for position in rng.integers(len(data) // 2, len(data), 200):
        data[position] ^= 0x5A
    source.write_bytes(data)
    target = tmp_path / "out.mkv"
    assert run(source, target, "--model", models["y"], "--preset", "ultrafast") == 0
    frames = len(decoded(target))
    assert 10 < frames < 50
    assert "gave no picture" in capsys.readouterr().err


def test_a_size_change_is_refused_and_leaves_nothing_behind(tmp_path, models, capsys):
    parts = [
        write_clip(tmp_path / "a.h264", width=160, height=96, frames=5),
        write_clip(tmp_path / "b.h264", width=200, height=120, frames=5),
    ]
    source = tmp_path / "both.h264"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert run(source, tmp_path / "out.mp4", "--model", models["y"]) == 2
    assert "its picture changes from 160×96 to 200×120; a file has one size" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))
