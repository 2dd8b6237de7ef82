"""Worker processes, live sources and publishers to them, ended with the test."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
from msgspec.structs import replace

from server.wire.messages import (
    Message,
    Rendition,
)
from tests.server.clips import write_clip
from tests.server.worker.live_ingest import Ingest
from tests.server.worker.worker_process import JOB, WorkerProcess


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerProcess]]:
    workers = []

    def start(
        module: str = "server.worker.main",
        watched: tuple[Rendition, ...] = ("upscaled",),
        before: tuple[Message, ...] = (),
        **changes,
    ) -> WorkerProcess:
        workers.append(WorkerProcess(replace(JOB, **changes), module, watched, before))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(
        tmp_path_factory.mktemp("clip") / "c.mp4", width=160, height=96, frames=250, audio="aac"
    )


@pytest.fixture
def publish(clip) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts ffmpeg; it plays the clip once at its own pace to where it is told."""
    started = []

    def publish(*where: str) -> subprocess.Popen:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-re",
            "-i",
            str(clip),
            "-c",
            "copy",
        ]
        started.append(subprocess.Popen([*command, *where], stdin=subprocess.DEVNULL))
        return started[-1]

    yield publish
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ingest() -> Iterator[Callable[..., Ingest]]:
    running = []

    def start(url: str, **options) -> Ingest:
        running.append(Ingest(url, **options))
        return running[-1]

    yield start
    for one in running:
        one.end()
