"""A checkpoint that another program has written is recognised by its weights, and nothing in it is run."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import InvalidCheckpoint
from server.__main__ import main
from tests.conftest import missing_peer
from training.networks.foreign import load_foreign


@pytest.fixture(autouse=True)
def spandrel() -> None:
    if importlib.util.find_spec("spandrel") is None:
        missing_peer("spandrel", "pip install 'livesr[foreign]'")


def compact(features: int = 8) -> dict[str, torch.Tensor]:
    """Real-ESRGAN's compact network with one convolution inside, all of zeros: it repeats each pixel."""
    shapes = {"0": (features, 3, 3, 3), "2": (features, features, 3, 3), "4": (12, features, 3, 3)}
    state = {f"body.{layer}.weight": torch.zeros(shape) for layer, shape in shapes.items()}
    state |= {f"body.{layer}.bias": torch.zeros(shape[0]) for layer, shape in shapes.items()}
    return state | {f"body.{layer}.weight": torch.zeros(features) for layer in ("1", "3")}


def test_it_is_judged_by_what_it_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"params_ema": compact()}, tmp_path / "compact.pth")
    (tmp_path / "set").mkdir()
    tiles = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(tiles.repeat(2, 0).repeat(2, 1)).save(tmp_path / "set" / "tiles.png")
    (tmp_path / "lr").mkdir()
    Image.fromarray(tiles).save(tmp_path / "lr" / "tiles.png")
    sets = f"tiles={tmp_path / 'set'},{tmp_path / 'lr'}"
    assert main(["evaluate", "--model", str(tmp_path / "compact.pth"), "--set", sets, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scale"] == 2
    assert document["sets"]["tiles"]["ssim"] == 1.0  # a pixel is four times itself
    network = load_foreign(tmp_path / "compact.pth")
    assert (network.architecture, network.colour) == ("RealESRGAN Compact", "rgb")
    assert network.parameters == sum(weight.numel() for weight in compact().values())
    assert network.mult_adds == (8 * 27 + 8 * 72 + 12 * 72) * 1280 * 720 / 4


class Harmful:
    def __init__(self, victim: Path) -> None:
        self._victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._victim,)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    torch.save({"params": compact(), "more": Harmful(tmp_path / "harmed")}, tmp_path / "evil.pth")
    with pytest.raises(InvalidCheckpoint, match=r"evil\.pth holds more than tensors: '.*' is refused$"):
        load_foreign(tmp_path / "evil.pth")
    assert not (tmp_path / "harmed").exists()


def altered(layer: str, shape: tuple[int, ...], fill: float = 0) -> dict[str, torch.Tensor]:
    return compact() | {f"body.{layer}.weight": torch.full(shape, fill)}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"weight": torch.zeros(3, 3)}, "spandrel makes no network of it"),
        ({1: torch.zeros(2)}, r"spandrel makes no network of it \(AttributeError: 'int' object"),
        (
            altered("4", (13, 8, 3, 3)) | {"body.4.bias": torch.zeros(13)},
            r"spandrel makes no network of it \(AssertionError: ",
        ),
        (altered("0", (8,)), r"spandrel makes no network of it \(IndexError: "),
        (altered("2", (8, 8, 3, 3), math.nan), r"weight 'body.2.weight' has NaN or infinity"),
        (altered("2", (8, 8, 3, 3), -math.inf), r"weight 'body.2.weight' has NaN or infinity"),
        ([1, 2], "holds a list, must be a dictionary"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: object, rule: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InvalidCheckpoint, match=rf"other\.pth.*{rule}"):
        load_foreign(tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", [".pth", ".PTH"])
def test_a_damaged_file_is_one_line(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, damaged = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    torch.save({"params": compact()}, whole)
    rng = np.random.default_rng(0)
    flipped = []
    for _ in range(20):
        data = bytearray(whole.read_bytes())
        data[rng.integers(30, 900)] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(data))
    errors = []
    for data in (b"", b"hello", whole.read_bytes()[:10], whole.read_bytes()[:5000], *flipped):
        damaged.write_bytes(data)
        try:
            load_foreign(damaged)
        except InvalidCheckpoint as exc:
            errors.append(str(exc))
    assert len(errors) > 4
    assert all(error.startswith(str(damaged)) and error.isprintable() for error in errors)
    damaged.write_bytes(whole.read_bytes()[:5000])
    assert main(["evaluate", "--model", str(damaged), "--set", f"A={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert f"damaged{suffix} is no PyTorch file, or damaged (OSError" in error
    assert error.count("\n") == 1


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="is a folder or a device, must be a file"):
        load_foreign(tmp_path)
