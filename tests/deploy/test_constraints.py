"""The constraints file names everything that livesr pulls in, and allows what is installed here."""

import re
from importlib import metadata

from tests.conftest import ROOT
from tests.release.dependencies import needed

PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
EXTRAS = ("train", "onnx", "otel", "dev")  # what `make test` installs


def test_every_dependency_is_pinned():
    unpinned = needed(*EXTRAS) - PINNED.keys()

    assert not unpinned


def test_the_tests_run_with_what_is_pinned():
    installed = {name: metadata.version(name).partition("+")[0] for name in needed(*EXTRAS)}

    assert {name: version for name, version in installed.items() if PINNED.get(name) != version} == {}
