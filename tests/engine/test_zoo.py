"""What ships: every model is a folder with its weights and an artifact that was built of just these."""

from pathlib import Path

import pytest

from engine.artifact import open_artifact
from engine.errors import ModelNotFound
from engine.load import choose
from engine.network.checkpoint import load_checkpoint
from engine.shipped import ZOO, model_name, shipped_artifact, shipped_checkpoint, zoo

# More than any build needs: what is quantised here has been looked at.
LOWEST_SHIPPED_DB = 54.0


@pytest.mark.parametrize("model", zoo())
def test_a_model_comes_with_weights_and_artifact(model: str) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint(model))
    assert {"recipe", "data", "data_sha256", "iteration", "minutes"} <= checkpoint.provenance.keys()
    manifest = open_artifact(shipped_artifact(model, "int8")).manifest
    assert manifest.checkpoint_sha256 == checkpoint.sha256
    assert manifest.config == checkpoint.config
    assert manifest.parity_db is not None
    assert manifest.parity_db >= LOWEST_SHIPPED_DB


def test_a_name_is_a_model_wherever_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the zoo itself each name is a folder's, too."""
    model = "awsrn-live-tiny-x2"
    monkeypatch.chdir(ZOO)
    assert choose(model, None, None).path == shipped_artifact(model, "int8")
    assert choose(model, "reference", None).path == shipped_checkpoint(model)


def test_a_wrong_name_is_told_the_right_ones() -> None:
    with pytest.raises(ModelNotFound, match=r"'awsrn-live-x9' is neither a path nor one of .*awsrn-live-x2"):
        choose("awsrn-live-x9", None, None)


def test_a_file_of_a_model_is_called_as_the_model(tmp_path: Path) -> None:
    model = "awsrn-live-tiny-x2"
    for path in (shipped_checkpoint(model), shipped_artifact(model, "int8")):
        assert choose(path, None, None).name == model
    assert model_name(tmp_path / "mine.safetensors") == "mine"
