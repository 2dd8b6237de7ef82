"""The page about the models that ship follows from their files and from what was measured of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.load import zoo
from server.__main__ import main
from tests.conftest import ROOT
from training.commands import models
from training.commands.models import QUALITY, written


def test_the_page_is_what_its_sources_say() -> None:
    stored = json.loads(QUALITY.read_text())
    page = (ROOT / "docs" / "models.md").read_text()
    assert page == written(stored), "livesr models --out docs/models.md"
    for name in zoo():
        assert page.count(f"`{name}` | ") >= 2, f"{name} is not measured: livesr models --set …"


def test_a_model_is_measured_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "noise.png")
    monkeypatch.setattr(models, "zoo", lambda: ["awsrn-live-tiny-x2"])
    stored, page = tmp_path / "quality.json", tmp_path / "models.md"
    words = ["models", "--quality", str(stored), "--out", str(page)]
    measure = [*words, "--set", f"noise={tmp_path / 'set'}"]
    assert main(measure) == 0
    assert "measuring awsrn-live-tiny-x2" in capsys.readouterr().err
    first = page.read_text()
    assert "| `awsrn-live-tiny-x2` | int8 | " in first
    assert "noise (1)" in first

    assert main(measure) == 0
    assert "measuring" not in capsys.readouterr().err
    assert page.read_text() == first

    document = json.loads(stored.read_text())
    document["models"]["awsrn-live-tiny-x2"]["checkpoint_sha256"] = "other weights"
    stored.write_text(json.dumps(document))
    assert main(words) == 0
    assert "awsrn-live-tiny-x2 has changed since it was measured" in capsys.readouterr().err
    assert "| int8 | " not in page.read_text()  # no figure of other weights
