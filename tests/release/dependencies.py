"""What livesr and its extras pull into this environment."""

import tomllib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

_OF_TORCH = ("nvidia-", "cuda-", "triton")  # its GPU libraries; torch pins them itself


def needed(*extras: str) -> set[str]:
    """The distributions that livesr with these extras needs, by their canonical names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return _closure([*project["dependencies"], *(text for extra in extras for text in optional[extra])])


def _closure(requirements: Iterable[str]) -> set[str]:
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.distribution(requirement.name).requires or []:
            further = Requirement(text)
            environments = [{"extra": extra} for extra in requirement.extras or {""}]
            if further.marker is None or any(map(further.marker.evaluate, environments)):
                waiting.append(further)
    return {name for name, _extras in seen if not name.startswith(_OF_TORCH)}
