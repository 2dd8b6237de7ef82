"""Files that `torch.save` wrote, read without running anything that is in them."""

import pickle
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import InvalidCheckpoint, ModelNotFound

_REFUSED = re.compile(r"GLOBAL (.+?) (?:was not|whose module)", re.DOTALL)
_MOST = 200


def read_pytorch(path: Path) -> object:
    """What the file holds, on the CPU: tensors, numbers, words, and lists and dictionaries of them.

    Raises ModelNotFound, and InvalidCheckpoint naming what else a pickle asks for.
    """
    if not path.exists():
        raise ModelNotFound(f"checkpoint {path} does not exist")
    if not path.is_file():
        raise InvalidCheckpoint(f"{path} is a folder or a device, must be a file")
    try:
        with warnings.catch_warnings(action="ignore"):  # of old pickles and TorchScript: in the way of errors
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        # torch's own words advise to run what it refused.
        refused = _REFUSED.search(str(exc))
        if refused is None:
            raise InvalidCheckpoint(f"{path} is no PyTorch file, or holds more than tensors") from exc
        what = f"{refused[1][:_MOST]!r} is refused"
        raise InvalidCheckpoint(f"{path} holds more than tensors: {what}") from exc
    except Exception as exc:  # an unpickler of any bytes raises anything
        if "TorchScript" in str(exc):
            raise InvalidCheckpoint(f"{path} is a TorchScript archive, must be a file of tensors") from exc
        raise InvalidCheckpoint(f"{path} is no PyTorch file, or damaged ({in_one_line(exc)})") from exc


def in_one_line(exc: Exception) -> str:
    """An error of a library by type and words, with nothing in it that a terminal acts on."""
    line = " ".join(str(exc).split())
    words = "".join(letter for letter in line if letter.isprintable())[:_MOST]
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


def check_finite(path: Path, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Raises InvalidCheckpoint naming the first weight that has an infinite number or none, or is sparse."""
    for name, weight in weights:
        if weight.is_meta or weight.layout != torch.strided:
            raise InvalidCheckpoint(f"{path}: weight {name!r} must be dense")
        if not torch.isfinite(weight).all():
            raise InvalidCheckpoint(f"{path}: weight {name!r} has NaN or infinity in it, must be finite")
