"""Cards, and the page about all models, follow from files and from what was measured of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import shipped
from engine.shipped import ZOO, model_folder, zoo
from server.__main__ import main
from tests.conftest import ROOT
from tests.training.judge.test_video_quality import write_clip
from training.cards.model import TRAINING_DATA, read_model, read_training_data
from training.commands.models import pages, read_models

MODEL = "awsrn-live-tiny-x2"


def test_cards_and_page_are_what_their_sources_say() -> None:
    written = pages(read_models(), ROOT / "docs" / "models.md")
    assert written.keys() == {model_folder(name) / "README.md" for name in zoo()} | {
        ROOT / "docs" / "models.md"
    }
    for path, text in written.items():
        assert path.read_text() == text, "livesr models --out docs/models.md"


@pytest.mark.parametrize("name", zoo())
def test_every_model_is_measured_and_its_data_known(name: str) -> None:
    model, data = read_model(name), read_training_data()
    assert model.evaluation is not None, "livesr models --set … --video …"
    assert {"Set5", "Set14"} <= model.evaluation.int8.scores.keys()
    assert model.evaluation.int8.videos.keys() == model.evaluation.lanczos.videos.keys() != set()
    for run in model.runs():
        known = data[run["data_sha256"]]
        assert sum(known.licences.values()) == int(known.pictures.split()[0])


@pytest.fixture
def little_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model that is new: its checkpoint, its artifact and its notes."""
    folder = tmp_path / "zoo" / "mine-x2"
    folder.mkdir(parents=True)
    shutil.copy(ZOO / MODEL / "checkpoint.safetensors", folder)
    shutil.copytree(ZOO / MODEL / "int8", folder / "int8")
    (folder / "notes.md").write_text("What nobody\nelse has.\n\n- It was found in a drawer.\n")
    shutil.copy(ZOO / TRAINING_DATA, tmp_path / "zoo")
    monkeypatch.setattr(shipped, "ZOO", tmp_path / "zoo")
    return folder


@pytest.mark.parametrize("text", ["{bad", "[]", "{}", '{"material": {"sets": 1}}', "\xff"])
def test_a_damaged_evaluation_is_named(little_zoo: Path, text: str) -> None:
    (little_zoo / "evaluation.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged \(.*: restore it, or remove it"):
        read_model("mine-x2")


def test_a_model_is_measured_when_it_is_new_or_has_changed(
    little_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "noise.png")
    clip = write_clip(tmp_path / "moving.y4m", 4)
    words = ["models", "--out", str(tmp_path / "models.md")]
    measure = [*words, "--set", f"noise={tmp_path / 'set'}"]
    measure += ["--video", str(clip), "--crf", "23", "--crf", "33", "--frames", "2"]
    assert main(measure) == 0
    assert "measuring mine-x2" in capsys.readouterr().err
    card, page = (little_zoo / "README.md").read_text(), (tmp_path / "models.md").read_text()
    assert "# mine-x2\n\nWhat nobody else has.\n" in card
    assert "## Notes\n\n- It was found in a drawer.\n" in card
    options = "--set noise=DIR --video moving.y4m --crf 23 --crf 33 --frames 2"
    assert f"`livesr evaluate --model mine-x2 --scale 2 {options}`" in card
    stored = json.loads((little_zoo / "evaluation.json").read_text())
    psnr_db = stored["int8"]["sets"]["noise"]["psnr_db"]
    first, second = stored["int8"]["videos"]["moving.y4m"]
    assert (first["crf"], second["crf"], second["frames"]) == (23, 33, 2)
    assert f"| {psnr_db:.2f}/" in card
    assert f"| {psnr_db:.2f} / " in page
    assert f"| {second['psnr_db']:.2f} | " in card
    gain = second["psnr_db"] - stored["lanczos"]["videos"]["moving.y4m"][1]["psnr_db"]
    assert f"| 33 | 1 | {gain:+z.2f} ({gain:+z.2f}) | " in card

    assert main(measure) == 0
    assert "measuring" not in capsys.readouterr().err
    assert (little_zoo / "README.md").read_text() == card
    assert main([*measure[:-1], "3"]) == 0
    assert "measuring mine-x2" in capsys.readouterr().err

    for changed in ({"checkpoint_sha256": "other weights"}, {"artifact_files": {"net.bin": "built anew"}}):
        (little_zoo / "evaluation.json").write_text(json.dumps(stored | changed))
        assert main(words) == 0
        assert "mine-x2 has not been measured since it changed" in capsys.readouterr().err
        assert "## Evaluation" not in (little_zoo / "README.md").read_text()  # no figure of another


def test_what_a_model_lacks_is_named(
    little_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["models", "--out", str(tmp_path / "models.md")]
    data = little_zoo.parent / TRAINING_DATA
    text = data.read_text()
    digest = read_model("mine-x2").provenance["data_sha256"]
    data.write_text(text.replace(digest, "0" * 64))
    assert main(words) == 0
    assert f"data_sha256 {digest} of mine-x2 is not in training-data.toml" in capsys.readouterr().err
    data.write_text("[[pairs]]\n")
    assert main(words) == 2
    assert "training-data.toml is unreadable" in capsys.readouterr().err
    data.write_text(text)

    (little_zoo / "notes.md").unlink()
    assert main(words) == 2
    assert "mine-x2 lacks notes.md" in capsys.readouterr().err

    shutil.rmtree(little_zoo / "int8")
    shutil.copytree(ZOO / "awsrn-live-x2" / "int8", little_zoo / "int8")
    assert main(words) == 2
    assert "mine-x2/int8 was built of other weights" in capsys.readouterr().err
