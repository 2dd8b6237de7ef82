"""The engine's commands, as a user types them."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.artifact import open_artifact
from engine.config import paper_config
from engine.network.checkpoint import load_checkpoint, save_checkpoint
from engine.shipped import shipped_checkpoint
from server.__main__ import main
from tests.conftest import shared


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_convert_reads_what_the_authors_released(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "sd.safetensors"
    report = run_json(capsys, "convert", str(shared("parity") / "awsrn_sd_x3.pt"), str(out))
    assert load_checkpoint(out).config == paper_config("awsrn-sd", 3)
    assert report["parameters"] == 388_013
    assert load_checkpoint(out).provenance["source"] == "awsrn_sd_x3.pt"


def pickled(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


WEIGHTS = {"head.weight_v": torch.zeros(8)}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"no pickle", "is no PyTorch file, or holds more than tensors"),
        (b"hello", "is no PyTorch file, or damaged (KeyError: 101)"),
        (pickled(WEIGHTS)[:1000], "is no PyTorch file, or damaged ("),
        (b"\x80\x02cos\n\x1b[31mgone\nq\x00.", r"holds more than tensors: 'os.\x1b[31mgone' is refused"),
        (pickled({"params": WEIGHTS}), "holds 'params' of type dict, must hold tensors by name alone"),
        (pickled({1: torch.zeros(2)}), "holds 1 of type Tensor, must hold tensors by name alone"),
        (pickled([1]), "holds a list, must be a dictionary of tensors"),
        (pickled(WEIGHTS), "is no AWSRN state dict: not enough values"),
        (pickled({"head.bias": torch.tensor([1, math.nan])}), "weight 'head.bias' has NaN or infinity"),
    ],
)
def test_convert_refuses_what_is_none(
    content: bytes, rule: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "in.pt").write_bytes(content)
    assert main(["convert", str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("livesr convert: ")
    assert "in.pt" in error
    assert rule in error
    assert error.count("\n") == 1
    assert error[:-1].isprintable()


def test_convert_writes_checkpoints_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["convert", str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err


def test_a_checkpoint_has_finite_weights(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    network = load_checkpoint(checkpoint).network()
    with torch.no_grad():
        next(network.parameters()).fill_(math.inf)
    save_checkpoint(tmp_path / "diverged.safetensors", network, {})
    assert main(["build", str(tmp_path / "diverged.safetensors"), str(tmp_path / "out")]) == 2
    assert "has NaN or infinity in it, must be finite" in capsys.readouterr().err


def test_build_makes_an_artifact(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "luma.int8"
    report = run_json(capsys, "build", str(checkpoint), str(out), "--precision", "int8")
    manifest = open_artifact(out).manifest
    assert report["parity_db"] == manifest.parity_db
    assert manifest.parity_db is not None
    assert manifest.parity_db >= 50
    assert report["precision"] == "int8"
    named = run_json(capsys, "build", "awsrn-live-tiny-x2", str(tmp_path / "a"), "--precision", "float32")
    shipped = load_checkpoint(shipped_checkpoint("awsrn-live-tiny-x2"))
    assert named["checkpoint_sha256"] == shipped.sha256
    assert main(["build", "awsrn-lvie-x2", str(tmp_path / "b")]) == 2
    assert "'awsrn-lvie-x2' is neither a path nor one of awsrn" in capsys.readouterr().err
    assert main(["build", str(checkpoint), str(tmp_path / "b"), "--frames", str(tmp_path / "none")]) == 2
    assert "none do not exist" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_bench_measures_in_turns_with_the_reference(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    words = ["bench", str(checkpoint), "--size", "64x48", "--seconds", "0.2"]
    report = run_json(capsys, *words, "--precision", "bf16", "--against", "reference", "--threads", "1")
    assert report["spec"]["precision"] == "bf16"
    assert (report["spec"]["width"], report["spec"]["height"]) == (64, 48)
    assert report["frames"] > 0
    assert report["frames_per_s"] == pytest.approx(1000 / report["ms_per_frame"])
    macs = report["spec"]["macs_per_frame"]
    assert report["gmac_per_s"] == pytest.approx(macs / report["ms_per_frame"] / 1e6)
    assert report["share_of_peak"] == pytest.approx(report["gmac_per_s"] / report["peak_gmac_per_s"])
    assert report["speed_up"] == pytest.approx(report["reference_ms_per_frame"] / report["ms_per_frame"])
    assert report["peak_rss_bytes"] > 50e6
    assert not report["random_weights"]


def test_bench_compares_with_another_artifact(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    words = ["bench", "awsrn-live-x2", "--size", "64x48", "--seconds", "0.1", "--threads", "1"]
    report = run_json(capsys, *words, "--against", str(checkpoint))
    assert report["other"]["model"] == "luma"
    assert report["cpu"]["low"] <= report["cpu"]["median"] <= report["cpu"]["high"]
    assert main([*words, "--against", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err


def test_bench_profiles_what_runs_on_openvino(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "awsrn-live-x2", "--size", "64x48", "--seconds", "0.1", "--profile"]
    report = run_json(capsys, *words)
    assert {"head/conv", "tail/conv"} <= {node["name"] for node in report["nodes"]}
    assert report["total_ms"] > 0
    assert main([*words, "--backend", "reference"]) == 2
    assert "not on backend='reference'" in capsys.readouterr().err


def test_bench_runs_a_papers_model_on_random_weights_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", "awsrn-sd-x4", "--size", "16x16", "--seconds", "0.1", "--precision", "float32"]) == 0
    )
    text = capsys.readouterr().out
    assert "awsrn-sd-x4, random weights · openvino float32 · 16×16 → 64×64" in text
    assert "of this machine's peak" in text
    with pytest.raises(SystemExit):
        main(["bench", "--size", "640"])
    assert "'640' must be WIDTHxHEIGHT" in capsys.readouterr().err


def test_doctor_says_what_will_be_used_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "doctor")
    assert report["cpu"]["cores"] >= 1
    assert report["memory_bytes"] > 1e9
    assert any(device.startswith("CPU") for device in report["openvino"]["devices"])
    assert report["codecs"]["libx264"] == {"works": True}
    for name in ("h264_nvenc", "nvdec"):
        codec = report["codecs"][name]
        assert codec["works"] or codec["reason"]
    live = report["models"]["awsrn-live-x2"]
    assert live["backend"] == "openvino"
    assert live["why"]
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert report["cpu"]["model"] in text
    assert "awsrn-live-x2" in text
