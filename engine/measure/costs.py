"""What networks cost on this machine: measured once, kept beside the artifacts by machine and version."""

import json
import logging
import os
from collections.abc import Mapping
from importlib.metadata import version

from engine.backends.tensorrt.store import artifacts_folder
from engine.machine import cpu

log = logging.getLogger(__name__)

_FILE = "costs.json"


def load_costs() -> dict[str, float]:
    """CPU seconds for a million pixels of source, decoded, upscaled and encoded, by model. Empty where
    nothing was measured on this machine with this version."""
    return _read().get(_machine(), {})


def store_costs(costs: Mapping[str, float]) -> None:
    """Adds to what is kept; raises OSError where it can't be written."""
    kept = _read()
    kept[_machine()] = {**kept.get(_machine(), {}), **costs}
    path = artifacts_folder() / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(kept, indent=1))
    partial.replace(path)


def _machine() -> str:
    return f"livesr {version('livesr')} on {cpu().model}, {cpu().cores} cores"


def _read() -> dict[str, dict[str, float]]:
    path = artifacts_folder() / _FILE
    try:
        kept = json.loads(path.read_text())
        return {
            machine: {model: float(cost) for model, cost in costs.items()} for machine, costs in kept.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        log.warning("%s is not used, and will be written anew: %s", path, exc)
        return {}
