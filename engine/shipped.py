"""The models that ship: each a folder of `zoo/`, named as the model is.

    checkpoint.safetensors    the weights, with the whole story of their training
    int8/                     the artifact that was built of them
    README.md                 the model's card, written by `livesr models`
    notes.md                  what no command can tell of it, which the card takes over
    evaluation.json           what `livesr models` measured of it

What runs needs the first two alone.
"""

from pathlib import Path
from typing import get_args

from engine.artifact import MANIFEST
from engine.errors import ModelNotFound
from engine.frame import Precision

ZOO = Path(__file__).parent / "zoo"
CHECKPOINT = "checkpoint.safetensors"


def zoo() -> list[str]:
    """The models that ship, by name."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{CHECKPOINT}"))


def model_folder(name: str) -> Path:
    return ZOO / name


def shipped_checkpoint(name: str) -> Path:
    return model_folder(name) / CHECKPOINT


def shipped_artifact(name: str, precision: Precision) -> Path:
    """Where it is if there is one."""
    return model_folder(name) / precision


def is_name(path: Path) -> bool:
    """A shipped model's name, well spelt or not, rather than a file or folder. In the zoo itself a name is
    that of a folder as well."""
    if path.suffix or len(path.parts) != 1:
        return False
    return not path.exists() or (path.name in zoo() and not (path / MANIFEST).is_file())


def find_checkpoint(model: Path) -> Path:
    """File of a model that ships, by its name; any other path as it is. Raises ModelNotFound naming
    the models that ship."""
    if not is_name(model):
        return model
    if model.name not in zoo():
        raise ModelNotFound(f"model {str(model)!r} is neither a path nor one of {', '.join(zoo())}")
    return shipped_checkpoint(model.name)


def model_name(path: Path) -> str:
    """What a checkpoint or an artifact is called: its own name, or its folder's where its own says only what
    it is, as those of the zoo and of `livesr train` do."""
    if path.name == CHECKPOINT or path.name in get_args(Precision):
        return path.absolute().parent.name
    return path.name if path.is_dir() else path.stem
