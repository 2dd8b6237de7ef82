"""The page about the paper's networks follows from checkpoints of `livesr train` and from what they score."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import AwsrnConfig, paper_config
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import load_checkpoint
from server.__main__ import main
from tests.conftest import ROOT
from training.commands import paper
from training.commands.paper import written
from training.networks import save_network
from training.paper.runs import checkpoint_of
from training.recipes import short_recipe

DOCS = ROOT / "docs"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "noise.png")
    monkeypatch.setattr(paper, "PICTURE", tmp_path / "set" / "noise.png")
    return tmp_path / "set"


def trained(path: Path, config: AwsrnConfig, **provenance: object) -> str:
    save_network(path, Awsrn(config), config, provenance)
    return str(path)


def test_the_page_is_what_its_results_say() -> None:
    stored = json.loads((DOCS / "paper" / "results.json").read_text())
    page = (DOCS / "paper.md").read_text()
    assert page == written(stored, "paper"), "livesr paper --out docs/paper.md"
    shipped = load_checkpoint(checkpoint_of("awsrn-sd-x2"))
    assert stored["networks"]["awsrn-sd-x2"]["checkpoint_sha256"] == shipped.sha256
    shown = {line.split("(")[1][:-1] for line in page.splitlines() if line.startswith("![")}
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / "paper").glob("*.png")}
    assert shown == there
    assert all((DOCS / name).stat().st_size < 60_000 for name in shown)


def test_a_checkpoint_is_judged_beside_the_paper(pictures: Path, tmp_path: Path) -> None:
    config = paper_config("awsrn-sd", 8)
    recipe = short_recipe(config, iterations=1_000).to_dict()
    before = {"recipe": recipe | {"config": paper_config("awsrn-s", 2).to_dict()}, "iteration": 500}
    checkpoint = trained(
        tmp_path / "sd.safetensors", config, recipe=recipe, iteration=250, minutes=3.2, began_with=before,
        validation={"set": "Set5", "psnr_db": [[125, 20.5], [250, 21.25]]},
    )  # fmt: skip
    words = ["paper", "--out", str(tmp_path / "page.md"), "--model", checkpoint, "--note", "On noise."]
    assert main([*words, "--set", f"Set5={pictures}"]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "from DIV2K, at a first rate of 0.001. On noise." in page
    # 16 patches an iteration, of the paper's 16 million; 500 iterations of AWSRN-S and 250 of its own
    row = "| AWSRN-SD ×8 | AWSRN-S ×2 of 500 iterations | 250 of 1,000 | 16 | 4,000 | 12,000 | 0.075% | 3 |"
    assert row in page
    assert "AWSRN-SD ×8 21.25 dB" in page

    result = json.loads((tmp_path / "page" / "results.json").read_text())["networks"]["awsrn-sd-x8"]
    assert result["parameters"] == config.parameters
    assert [branch["kernel"] for branch in result["branches"]] == [3, 5, 7, 9]
    assert len({branch["without_db"] for branch in result["branches"]}) == 4
    assert result["sets"]["Set5"]["psnr_db"] == pytest.approx(result["whole_db"], abs=0.01)
    for name in ("curves", "figure5-awsrn-sd-x8"):
        assert np.asarray(Image.open(tmp_path / "page" / f"{name}.png").convert("L")).std() > 5


@pytest.mark.parametrize(
    "text", ["{bad", "[]", "7", '{"networks": []}', '{"networks": {"a": {}}}', '{"bicubic": {"x": {}}}']
)
def test_damaged_results_are_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "results.json").write_text(text)
    assert main(["paper", "--out", str(tmp_path / "page.md"), "--model", "awsrn-sd-x2"]) == 2
    error = capsys.readouterr().err
    assert "results.json is damaged (" in error
    assert "restore it, or remove it" in error
    assert error.count("\n") == 1
    assert (tmp_path / "page" / "results.json").read_text() == text


def test_what_is_none_of_the_papers_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["paper", "--out", str(tmp_path / "page.md"), "--set", f"Kodak={pictures}", "--model"]
    config = paper_config("awsrn-s", 8)
    converted = trained(tmp_path / "converted.safetensors", config)
    recipe = short_recipe(config).to_dict()
    whole = trained(tmp_path / "whole.safetensors", config, recipe=recipe, iteration=1)
    for model, refusal in (
        ("awsrn-live-x2", "must be one of awsrn-s, awsrn-sd, awsrn-m, awsrn"),
        (converted, "its checkpoint names no recipe"),
        (whole, "--set Set5=DIR must be given"),
    ):
        assert main([*words, model]) == 2
        assert refusal in capsys.readouterr().err
    assert main([*words[:2], str(tmp_path), *words[3:], "awsrn-s"]) == 2
    assert f"--out {tmp_path} is a folder, must be a file" in capsys.readouterr().err
    assert main(words[:3]) == 2
    assert "knows of no network yet" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
