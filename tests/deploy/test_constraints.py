"""The constraints file names everything that livesr pulls in, and allows what is installed here."""

import re
import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))

EXTRAS = ("train", "onnx", "otel", "dev")
OF_TORCH = ("nvidia-", "cuda-", "triton")  # its GPU libraries; torch pins them itself


def needed() -> set[str]:
    """The distributions that livesr with its extras pulls into this environment, but for a GPU's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    direct = [*project["dependencies"], *(text for name in EXTRAS for text in extras[name])]
    waiting = [Requirement(text) for text in direct]
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
    return {name for name, _extras in seen if not name.startswith(OF_TORCH)}


def test_every_dependency_is_pinned():
    unpinned = needed() - PINNED.keys()

    assert not unpinned


def test_the_tests_run_with_what_is_pinned():
    installed = {name: metadata.version(name).partition("+")[0] for name in needed()}

    assert {name: version for name, version in installed.items() if PINNED.get(name) != version} == {}
