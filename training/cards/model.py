"""What the pages say of a model that ships, as its folder has it, and of the data that it saw."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import shipped
from engine.artifact import Manifest, open_artifact
from engine.config import AwsrnConfig
from engine.network.checkpoint import load_checkpoint
from training.cards.evaluation import Evaluation
from training.validate import runs_of

EVALUATION, NOTES, CARD = "evaluation.json", "notes.md", "README.md"
TRAINING_DATA = "training-data.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a run saw: the pictures, how LR was made of them, and how many are under which licence."""

    pictures: str
    lr: str
    licences: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One that ships. `purpose` and `notes`: the first paragraph of its notes, and the rest."""

    name: str
    config: AwsrnConfig
    checkpoint_sha256: str
    provenance: Mapping[str, Any] = field(repr=False)
    artifact: Manifest = field(repr=False)
    evaluation: Evaluation | None = field(repr=False)
    purpose: str
    notes: str = field(repr=False)

    def runs(self) -> list[Mapping[str, Any]]:
        """Training runs, the first one first."""
        return list(runs_of(self.provenance))[::-1]


def read_model(name: str) -> Model:
    """Raises EngineError, and ValueError naming the model whose artifact is of other weights, or that has no
    notes, or the damaged file. An evaluation of another artifact is none."""
    folder = shipped.model_folder(name)
    checkpoint = load_checkpoint(shipped.shipped_checkpoint(name))
    manifest = open_artifact(shipped.shipped_artifact(name, "int8")).manifest
    if manifest.checkpoint_sha256 != checkpoint.sha256:
        raise ValueError(f"{folder / 'int8'} was built of other weights: build it with `livesr build`")
    if not (folder / NOTES).is_file():
        raise ValueError(f"{folder} lacks {NOTES}, whose first paragraph says what {name} is for")
    purpose, _, notes = (folder / NOTES).read_text().partition("\n\n")
    evaluation = _evaluation(folder / EVALUATION)
    if evaluation and (evaluation.checkpoint_sha256, evaluation.artifact_files) != (
        checkpoint.sha256,
        manifest.files,
    ):
        evaluation = None
    return Model(
        name=name,
        config=checkpoint.config,
        checkpoint_sha256=checkpoint.sha256,
        provenance=checkpoint.provenance,
        artifact=manifest,
        evaluation=evaluation,
        purpose=" ".join(purpose.split()),
        notes=notes.strip(),
    )


def _evaluation(stored: Path) -> Evaluation | None:
    if not stored.is_file():
        return None
    try:
        return Evaluation.from_dict(json.loads(stored.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        what_to_do = "restore it, or remove it and measure anew with `livesr models --set …`"
        raise ValueError(f"{stored} is damaged ({type(exc).__name__}: {exc}): {what_to_do}") from exc


def read_training_data() -> dict[str, TrainingData]:
    """By the digest in a checkpoint's metadata. Raises ValueError naming the file that can't be read."""
    path = shipped.ZOO / TRAINING_DATA
    try:
        fields = tomllib.loads(path.read_text())
        return {
            pairs["sha256"]: TrainingData(
                pictures=fields["pictures"][pairs["pictures"]]["description"],
                licences=fields["pictures"][pairs["pictures"]]["licences"],
                lr=pairs["lr"],
            )
            for pairs in fields["pairs"]
        }
    except (tomllib.TOMLDecodeError, KeyError) as exc:
        raise ValueError(f"{path} is unreadable: {exc}") from exc
