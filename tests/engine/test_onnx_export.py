"""An exported file draws what the model draws, on the scale that a player hands over."""

import json
from pathlib import Path

import numpy as np
import pytest

import engine.onnx_export
from engine.backends.openvino.onnx import OnnxModel
from engine.config import AwsrnConfig
from engine.load import load_net
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint
from server.__main__ import main

RGB = AwsrnConfig(scale=3, lfbs=1, awrus=1, features=4, block_features=8, kernels=(3, 5))


@pytest.mark.parametrize(("model", "black", "span"), [("awsrn-live-tiny-x2", 16, 219), ("rgb", 0, 255)])
def test_it_draws_what_the_model_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, black: int, span: int
) -> None:
    if model == "rgb":
        model = str(tmp_path / "rgb.safetensors")
        save_checkpoint(Path(model), Awsrn(RGB), {})
    out = tmp_path / "model.onnx"
    assert main(["export", model, "--onnx", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["colour"] == ("y" if black else "rgb")
    assert "openvino" in document["largest_difference"]
    assert str(tmp_path).encode() not in out.read_bytes()  # nothing of this machine
    assert b"site-packages" not in out.read_bytes()

    x = np.random.default_rng(1).random((1, 1 if black else 3, 21, 34), dtype=np.float32)
    codes = load_net(model, backend="reference").run(span * x + black)
    drawn = OnnxModel(out.read_bytes()).run(x)
    assert np.abs(span * drawn + black - codes).max() < 0.05


def test_a_file_that_draws_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine.onnx_export, "MAX_DIFFERENCE", 0.0)
    save_checkpoint(tmp_path / "rgb.safetensors", Awsrn(RGB), {})
    out = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "rgb.safetensors"), "--onnx", str(out)]) == 2
    assert f"{out} by openvino differs from PyTorch by " in capsys.readouterr().err
    assert not out.exists()


def test_where_to_write_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "awsrn-live-x2", "--onnx", str(tmp_path / "model.bin")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
