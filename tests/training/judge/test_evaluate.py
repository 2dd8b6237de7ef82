"""`livesr evaluate` on images: every kind of model, one shape of answer, and clear words where it can't."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import AwsrnConfig, ColourKind
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint
from server.__main__ import main
from tests.conftest import shared
from training.commands import evaluate
from training.data.resize import upscale_bicubic
from training.networks import build_network, counts, named_config, save_network


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A colour and a grey image; the sides of one are odd."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((81, 65), Image.Resampling.BICUBIC).save(folder / "colour.png")
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).convert("L").save(folder / "grey.png")
    return folder


def checkpoint(folder: Path, colour: ColourKind = "y", scale: int = 2) -> Path:
    torch.manual_seed(0)
    config = AwsrnConfig(
        scale=scale, lfbs=1, awrus=1, features=16, block_features=16, kernels=(3, 5), colour=colour
    )
    path = folder / f"small-{colour}-x{scale}.safetensors"
    save_checkpoint(path, Awsrn(config), {})
    return path


def evaluated(capsys: pytest.CaptureFixture[str], *options: object) -> object:
    assert main(["evaluate", *map(str, options), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *options: object) -> str:
    assert main(["evaluate", *map(str, options)]) == 2
    return capsys.readouterr().err


def test_one_model_is_one_object(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = evaluated(capsys, "--model", "bicubic", "--scale", 2, "--set", f"Mine={photographs}")
    assert isinstance(answer, dict)
    assert answer.keys() == {"model", "engine", "scale", "parameters", "mult_adds", "sets"}
    assert (answer["model"], answer["scale"]) == ("bicubic", 2)
    assert answer["sets"].keys() == {"Mine"}
    assert answer["sets"]["Mine"].keys() == {"images", "psnr_db", "ssim"}
    assert answer["sets"]["Mine"]["images"] == 2


def test_set5_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    answer = evaluated(capsys, "--model", "bicubic", "--scale", 2, "--set", f"Set5={shared('data/Set5')}")
    assert isinstance(answer, dict)
    assert answer["sets"]["Set5"]["psnr_db"] == pytest.approx(33.673, abs=0.005)


def test_all_kinds_of_models_in_one_comparison(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    espcn = named_config("espcn", 2)
    save_network(tmp_path / "espcn.safetensors", build_network(espcn), espcn, {})
    names = [
        "bicubic",
        "lanczos",
        str(checkpoint(tmp_path, "y")),
        str(checkpoint(tmp_path, "rgb")),
        str(tmp_path / "espcn.safetensors"),
    ]
    models = [option for name in names for option in ("--model", name)]
    out = tmp_path / "out.csv"
    answer = evaluated(capsys, *models, "--backend", "reference", "--set", f"A={photographs}", "--csv", out)
    assert isinstance(answer, list)
    assert [one["model"] for one in answer] == names
    bicubic, lanczos = answer[0]["sets"]["A"], answer[1]["sets"]["A"]
    assert bicubic["psnr_db"] != lanczos["psnr_db"]
    lines = list(csv.DictReader(out.read_text().splitlines()))
    assert [line["engine"] for line in lines] == [
        "as MATLAB",
        "torch float32",
        "reference float32",
        "reference float32",
        "torch float32",
    ]
    assert int(lines[4]["parameters"]) == counts(espcn).parameters
    assert float(lines[0]["psnr_db"]) == bicubic["psnr_db"]


@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_a_compiled_network_scores_as_the_reference(
    colour: ColourKind, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", checkpoint(tmp_path, colour), "--set", f"A={photographs}"]
    reference = evaluated(capsys, *options, "--backend", "reference")
    compiled = evaluated(capsys, *options, "--backend", "openvino", "--precision", "float32")
    assert isinstance(reference, dict)
    assert isinstance(compiled, dict)
    for figure, tolerance in (("psnr_db", 0.01), ("ssim", 0.0005)):
        expected = reference["sets"]["A"][figure]
        assert compiled["sets"]["A"][figure] == pytest.approx(expected, abs=tolerance)


def test_an_artifact_is_judged_without_torch(photographs: Path) -> None:
    options = ["--model", "awsrn-live-tiny-x2", "--paper", "--set", f"A={photographs}"]
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from server.__main__ import main\n"
        f"sys.exit(main(['evaluate', *{options}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "openvino int8" in run.stdout


def test_given_lr_images_are_what_is_enlarged(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LR of which HR is the bicubic enlargement: only who reads them gets everything right."""
    (tmp_path / "hr").mkdir()
    (tmp_path / "lr").mkdir()
    lr = np.asarray(Image.open(photographs / "colour.png"))
    Image.fromarray(lr).save(tmp_path / "lr" / "ax2.png")
    Image.fromarray(upscale_bicubic(lr, 2)).save(tmp_path / "hr" / "a.png")
    pair = f"A={tmp_path / 'hr'},{tmp_path / 'lr'}"
    answer = evaluated(capsys, "--model", "bicubic", "--scale", 2, "--set", pair)
    assert isinstance(answer, dict)
    assert answer["sets"]["A"] == {"images": 1, "psnr_db": float("inf"), "ssim": pytest.approx(1)}


def test_the_text_says_what_ran(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint(tmp_path)
    assert (
        main(["evaluate", "--model", str(model), "--set", f"A={photographs}", "--backend", "reference"]) == 0
    )
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["×2", "engine", "params", "Mult-Adds", "A", "(2)"]
    assert "small-y-x2" in line
    assert "reference float32" in line


@pytest.mark.parametrize(
    ("option", "path", "rule"),
    [
        ("--csv", "none/out.csv", "none is no folder"),
        ("--csv", "photographs", "is a folder, must be a file"),
        ("--markdown", "/proc/out.md", "no file can be made in /proc"),
        ("--plot", "photographs", "is a folder, must be a file"),
        ("--crops", "file", "must be a folder"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_judged(
    option: str,
    path: str,
    rule: str,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(evaluate, "_judge_set", lambda *_: pytest.fail("judged"))
    on_set = ["--model", "bicubic", "--scale", 2, "--set", f"A={photographs}"]
    before = sorted(tmp_path.iterdir())
    error = refused(capsys, *on_set, option, tmp_path / path)
    assert f"{option} {tmp_path / path}" in error
    assert rule in error
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_evaluated_is_said(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_set = ["--set", f"A={photographs}"]
    x2, x3 = checkpoint(tmp_path), checkpoint(tmp_path, scale=3)
    assert "--scale must be given with --model bicubic" in refused(capsys, "--model", "bicubic", *on_set)
    for model, scale in (("bicubic", 0), ("bicubic", -2), ("bicubic", 1), ("lanczos", 5)):
        rule = f"--scale {scale} must be one of 2, 3, 4, 8 for {model}"
        assert rule in refused(capsys, "--model", model, "--scale", scale, *on_set)
    assert "--scale 3 must be the scale of" in refused(capsys, "--model", x2, "--scale", 3, *on_set)
    assert "scales [2, 3] can't be compared" in refused(capsys, "--model", x2, "--model", x3, *on_set)
    assert "neither a path nor one of" in refused(capsys, "--model", "nothing", *on_set)
    assert "give --set or --video" in refused(capsys, "--model", x2)
    assert "--set A is given twice" in refused(capsys, "--model", x2, *on_set, *on_set)
    assert "none is no folder" in refused(capsys, "--model", x2, "--set", f"A={tmp_path / 'none'}")
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(x2), "--set", "no-equals-sign"])
    assert "must be NAME=DIR" in capsys.readouterr().err
