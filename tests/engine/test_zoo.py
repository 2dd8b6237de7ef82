"""What ships: every model has its card, its weights and an artifact that was built of just these."""

import pytest

from engine.artifact import open_artifact
from engine.load import ZOO, zoo
from engine.network.checkpoint import load_checkpoint

# More than any build needs: what is quantised here has been looked at.
LOWEST_SHIPPED_DB = 54.0
CARDS = (ZOO / "README.md").read_text()


@pytest.mark.parametrize("model", zoo())
def test_a_model_comes_with_card_weights_and_artifact(model: str) -> None:
    assert f"## {model}\n" in CARDS
    checkpoint = load_checkpoint(ZOO / f"{model}.safetensors")
    assert {"recipe", "data", "data_sha256", "iteration", "minutes"} <= checkpoint.provenance.keys()
    manifest = open_artifact(ZOO / f"{model}.int8").manifest
    assert manifest.checkpoint_sha256 == checkpoint.sha256
    assert manifest.config == checkpoint.config
    assert manifest.parity_db is not None
    assert manifest.parity_db >= LOWEST_SHIPPED_DB


def test_no_card_is_of_a_model_that_does_not_ship() -> None:
    titles = {line.removeprefix("## ") for line in CARDS.splitlines() if line.startswith("## ")}
    assert {title for title in titles if title.startswith("awsrn")} == set(zoo())
