"""What a model's name, size and precision lead to, and what is said where it leads nowhere."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.build import build
from engine.config import live_config
from engine.errors import BackendUnavailable, InvalidCheckpoint, ModelNotFound
from engine.frame import Precision
from engine.load import choose, choose_net, load_engine, load_net
from engine.net import upscale_image
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import load_released, save_checkpoint
from engine.sample_frames import DEFAULT, sample_frames
from engine.shipped import zoo
from tests.conftest import shared


@pytest.mark.parametrize(("width", "height"), [(63, 48), (64, 47), (14, 48), (64, 4098), (0, 48), (-64, 48)])
def test_sizes_that_no_engine_takes(checkpoint: Path, width: int, height: int) -> None:
    name, value = ("width", width) if width != 64 else ("height", height)
    with pytest.raises(ValueError, match=f"{name}={value} must be even and 16 to 4096"):
        load_engine(checkpoint, width=width, height=height)


def test_names_that_stand_for_nothing(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="'awsrn-huge' is neither a path nor one of"):
        load_engine("awsrn-huge", width=64, height=48)
    with pytest.raises(ModelNotFound, match=r"absent\.safetensors does not exist"):
        load_net(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(InvalidCheckpoint, match=r"text\.safetensors is no safetensors file"):
        load_net(tmp_path / "text.safetensors")
    with pytest.raises(
        BackendUnavailable, match="'metal' must be one of tensorrt, cuda, openvino, reference"
    ):
        load_net(checkpoint, backend="metal")
    with pytest.raises(BackendUnavailable, match="'cuda' is for video; an image takes openvino or reference"):
        load_net(checkpoint, backend="cuda")
    with pytest.raises(BackendUnavailable, match="'reference' runs in float32, not in int8"):
        load_net(checkpoint, backend="reference", precision="int8")


def test_an_artifact_has_one_precision(checkpoint: Path, tmp_path: Path) -> None:
    build(checkpoint, tmp_path / "net", "float32", sample_frames(DEFAULT)[:2])
    assert choose(tmp_path / "net", None, None).precision == "float32"
    with pytest.raises(BackendUnavailable, match="was built in float32, not in int8"):
        choose(tmp_path / "net", None, "int8")
    with pytest.raises(
        BackendUnavailable, match=r"'reference' needs a checkpoint; .* is a compiled artifact"
    ):
        choose(tmp_path / "net", "reference", None)


def test_what_ships_loads_by_its_name() -> None:
    """The calibration frames beside the models are no model."""
    assert zoo()
    for name in zoo():
        choice = choose(name, None, None)
        assert (choice.name, choice.backend) == (name, "openvino")
        assert load_engine(name, width=64, height=48).spec.model == name


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_a_checkpoint_runs_in_each_precision(checkpoint: Path, precision: Precision) -> None:
    engine = load_engine(checkpoint, width=64, height=48, precision=precision)
    assert (engine.spec.model, engine.spec.precision) == ("luma", precision)
    assert (engine.spec.scale, engine.spec.colour, engine.spec.parity_db) == (2, "y", None)
    assert (
        engine.spec.macs_per_frame == choose(checkpoint, None, None).config.folded_macs_per_lr_pixel * 64 * 48
    )


@pytest.mark.parametrize("backend", ["openvino", "reference"])
def test_an_rgb_image_is_exactly_the_networks_output(backend: str, tmp_path: Path) -> None:
    folder = shared("parity")
    released = load_released(folder / "awsrn_s_x2.pt")
    save_checkpoint(tmp_path / "s.safetensors", released.network(), {})
    net = load_net(tmp_path / "s.safetensors", backend=backend, precision="float32")
    rgb = np.load(folder / "input_u8.npy")
    expected = np.load(folder / "awsrn_s_x2_out.npy").reshape(1, 3, 2 * rgb.shape[0], 2 * rgb.shape[1])
    expected = np.rint(np.clip(expected[0].transpose(1, 2, 0), 0, 255))
    output = upscale_image(net, rgb)
    assert output.dtype == np.uint8
    assert (output != expected).mean() < 1e-3  # where the fifth digit decides the rounding
    assert np.abs(output - expected).max() <= 1


def test_a_luma_model_keeps_an_images_colours(checkpoint: Path) -> None:
    image = Image.open(DEFAULT / "04-the-spices-of-life.webp").convert("RGB").crop((40, 20, 121, 91))
    output = upscale_image(load_net(checkpoint, backend="reference"), np.asarray(image))
    assert output.shape == (142, 162, 3)
    plain = np.asarray(image.resize((162, 142), Image.Resampling.BICUBIC), np.float64)
    for channel in range(3):
        assert abs(output[..., channel].mean() - plain[..., channel].mean()) < 3
        assert np.corrcoef(output[..., channel].ravel(), plain[..., channel].ravel())[0, 1] > 0.97


def test_images_of_other_kinds_are_refused(checkpoint: Path) -> None:
    net = load_net(checkpoint, backend="reference")
    for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match=r"must be \(h, w, 3\) of uint8"):
            upscale_image(net, image)


def test_frames_come_from_a_folder_or_a_video(tmp_path: Path) -> None:
    assert len(sample_frames(DEFAULT)) == 12
    clip = Path(__file__).parents[2] / "server" / "demo" / "demo.mp4"
    frames = sample_frames(clip)
    assert len(frames) == 24
    assert {frame.rgb.shape for frame in frames} == {(180, 320, 3)}
    with pytest.raises(ValueError, match="holds 0 frames, must hold at least 2"):
        sample_frames(tmp_path)
    (tmp_path / "noise.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"noise\.mp4 is neither a folder of images nor a video"):
        sample_frames(tmp_path / "noise.mp4")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png is no readable image"):
        sample_frames(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent do not exist"):
        sample_frames(tmp_path / "absent")


def test_a_checkpoint_is_judged_in_float32_and_runs_live_in_the_fastest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", Awsrn(live_config()), {})
    assert choose_net(tmp_path / "net.safetensors", None, None).precision == "float32"
    assert choose_net(tmp_path / "net.safetensors", None, "bf16").precision == "bf16"
    assert choose(tmp_path / "net.safetensors", None, None).precision in ("bf16", "float32")
