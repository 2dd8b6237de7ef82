"""One real service for all tests here; each adds its own streams, small ones, and takes them away again."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.conftest import missing_peer
from tests.peers.service import Service, running


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="package")
def ffmpeg() -> str:
    """An ffmpeg of its own build, not the libraries the service runs on."""
    return imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="package")
def program() -> Callable[[str, str], str]:
    """The path of an installed program, by its name and the Debian package that has it."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        if path is None:
            missing_peer(name, f"apt-get install {package}")
        return path

    return find


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts programs that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
