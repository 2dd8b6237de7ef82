"""What networks take of a GPU, as workers have told of their engines: kept beside the artifacts, by GPU."""

import json
import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version

from engine.backends.tensorrt.store import artifacts_folder
from engine.files import replace_file

log = logging.getLogger(__name__)

_FILE = "gpu-costs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCost:
    """For a million pixels of source: seconds of the GPU's time, alone on it, and bytes of its memory that an
    engine takes, and one stream's lanes of it."""

    s_per_megapixel: float
    engine_bytes_per_megapixel: float
    lane_bytes_per_megapixel: float


class GpuCosts:
    """By the name of the GPU and the model. Empty where nothing was measured by this version."""

    def __init__(self) -> None:
        self._costs = _read()

    def of(self, gpu: str, model: str) -> GpuCost | None:
        return self._costs.get(f"{model} on {gpu}")

    def learn(self, gpu: str, model: str, cost: GpuCost) -> bool:
        """Whether that is new."""
        known, self._costs[f"{model} on {gpu}"] = self.of(gpu, model), cost
        return known != cost

    def store(self) -> None:
        """For the next start, where it can be written. For any thread."""
        path = artifacts_folder() / _FILE
        costs = {name: asdict(cost) for name, cost in tuple(self._costs.items())}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = {"version": version("livesr"), "costs": costs}
            replace_file(path, json.dumps(kept, indent=1).encode())
        except OSError as exc:
            log.warning("what networks take of a GPU is not kept: %s", exc)


def _read() -> dict[str, GpuCost]:
    path = artifacts_folder() / _FILE
    try:
        kept = json.loads(path.read_text())
        if kept["version"] != version("livesr"):
            return {}
        return {
            str(name): GpuCost(**{field: float(value) for field, value in cost.items()})
            for name, cost in kept["costs"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        log.warning("%s is not used, and will be written anew: %s", path, exc)
        return {}
