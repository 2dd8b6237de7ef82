"""A TensorRT engine for a request: found on disk, or built by a process of its own as the stream goes on.

TensorRT chooses kernels by timing them: two builds on one GPU at once would time each other. So there is one
at a time for each GPU, of all processes that keep their artifacts in one folder.
"""

import fcntl
import hashlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from engine.backends.tensorrt.request import BuildRequest
from engine.backends.tensorrt.store import (
    TensorRtArtifact,
    find_artifact,
    find_fitting_artifact,
    remove_artifact,
    sweep,
)
from engine.errors import BuildFailed, BuildTimeout, PlanRefused
from engine.machine import nvidia_gpus

# Run as BUILDER FOLDER SECONDS with the request as JSON on its stdin; a line of its stdout is what it does
# now, the last line of its stderr why it failed.
BUILDER = (sys.executable, "-m", "engine.backends.tensorrt.build")
Progress = Callable[[str, float], None]
Loaded = TypeVar("Loaded")
_HEARTBEAT_S = 1.0
_WAIT_S = 0.2
log = logging.getLogger(__name__)


def load_artifact(
    request: BuildRequest,
    folder: Path,
    load: Callable[[TensorRtArtifact], Loaded],
    *,
    timeout_s: float,
    on_progress: Progress = lambda stage, elapsed_s: None,
    builder: Sequence[str] = BUILDER,
) -> Loaded:
    """What `load` makes of the request's artifact, or of one that fits it. One that is there and that it
    refuses, by PlanRefused, is removed, and the request's own built, once: what is refused even then raises.
    The rest as for `ensure_artifact`."""
    artifact = find_fitting_artifact(request, folder)
    if artifact is not None:
        try:
            return load(artifact)
        except PlanRefused as exc:
            log.warning("%s is removed and built again: %s", artifact.path, exc)
            remove_artifact(artifact)
    return load(
        ensure_artifact(request, folder, timeout_s=timeout_s, on_progress=on_progress, builder=builder)
    )


def ensure_artifact(
    request: BuildRequest,
    folder: Path,
    *,
    timeout_s: float,
    on_progress: Progress = lambda stage, elapsed_s: None,
    builder: Sequence[str] = BUILDER,
) -> TensorRtArtifact:
    """The request's artifact, built if need be. Blocks for minutes then: call it where no frame waits.

    Of processes and threads that want the same artifact, one builds and the others wait for it, and builds
    for one GPU take turns; a build has `timeout_s` from its turn on. `on_progress` is called with what is
    being done and the seconds so far, at least once a second; what it raises stops the build and comes out
    here. A builder whose parent is killed goes on, for as long as it had left, so that the next process finds
    its artifact. Raises BuildFailed with the builder's last words, BuildTimeout.
    """
    start = time.monotonic()
    while (artifact := find_artifact(request, folder)) is None:
        with _claim(request.digest, request, folder) as lock:
            if lock is not None:
                if (artifact := find_artifact(request, folder)) is None:
                    with _turn(request, folder, on_progress) as turn:
                        artifact = _build(request, folder, [lock, turn], timeout_s, on_progress, builder)
                return artifact
        elapsed_s = time.monotonic() - start
        if elapsed_s > timeout_s:
            raise BuildTimeout(f"{request}: another process has not built it within {timeout_s:.0f} s")
        on_progress("waiting for another process that builds it", elapsed_s)
        time.sleep(_WAIT_S)
    return artifact


@contextmanager
def _turn(request: BuildRequest, folder: Path, on_progress: Progress) -> Iterator[int]:
    """The right to build on this process's GPU, as a locked file. Waits for as long as others build there,
    each for its own time at most."""
    gpus = nvidia_gpus()
    gpu = hashlib.sha256((gpus[0].uuid if gpus else request.target.gpu).encode()).hexdigest()
    start = time.monotonic()
    while True:
        with _claim(gpu, request, folder) as lock:
            if lock is not None:
                yield lock
                return
        on_progress("waiting for another build on this GPU", time.monotonic() - start)
        time.sleep(_WAIT_S)


@contextmanager
def _claim(name: str, request: BuildRequest, folder: Path) -> Iterator[int | None]:
    """A right to build, as a locked file; None where another has it. A process that dies gives it back."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".lock-{name[:16]}").open("w")
    except OSError as exc:
        raise BuildFailed(f"{request} can't be built: {folder} can't be written: {exc.strerror}") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def _build(
    request: BuildRequest,
    folder: Path,
    locks: list[int],
    timeout_s: float,
    on_progress: Progress,
    builder: Sequence[str],
) -> TensorRtArtifact:
    start = time.monotonic()
    command = [*builder, str(folder), f"{max(1, timeout_s):.0f}"]
    sweep(request, folder)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=locks,  # an orphan keeps its right to build
            start_new_session=True,
        )
        try:
            status = _follow(process, request, timeout_s, start, on_progress)
        finally:
            _kill(process)
            sweep(request, folder)
        if status != 0:
            how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
            raise BuildFailed(f"building {request} failed ({how}): {_last_line(errors)}")
    artifact = find_artifact(request, folder)
    if artifact is None:
        raise BuildFailed(f"building {request} left no engine that is what was asked for")
    return artifact


def _follow(
    process: subprocess.Popen[bytes],
    request: BuildRequest,
    timeout_s: float,
    start: float,
    on_progress: Progress,
) -> int:
    """The exit status, having passed on what the builder does."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request.to_json().encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read its request: its status and last words say why
    stage, line = "starting the builder", b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while process.poll() is None:
            elapsed_s = time.monotonic() - start
            if elapsed_s >= timeout_s:
                raise BuildTimeout(f"building {request} was stopped after {timeout_s:.0f} s while {stage}")
            on_progress(stage, elapsed_s)
            if not selector.select(min(_HEARTBEAT_S, timeout_s - elapsed_s)):
                continue
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                time.sleep(_WAIT_S)  # it is ending
            *lines, line = (line + chunk).split(b"\n")
            if lines:
                stage = lines[-1].decode(errors="replace")
    return process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 4096))
    lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
