"""A TensorRT engine for a request: found on disk, or built by a process of its own as the stream goes on."""

import fcntl
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
from typing import IO

from engine.backends.tensorrt.request import BuildRequest
from engine.backends.tensorrt.store import TensorRtArtifact, find_artifact, sweep
from engine.errors import BuildFailed, BuildTimeout

# Run as BUILDER FOLDER SECONDS with the request as JSON on its stdin; a line of its stdout is what it does
# now, the last line of its stderr why it failed.
BUILDER = (sys.executable, "-m", "engine.backends.tensorrt.build")
Progress = Callable[[str, float], None]
_HEARTBEAT_S = 1.0
_WAIT_S = 0.2


def ensure_artifact(
    request: BuildRequest,
    folder: Path,
    *,
    timeout_s: float,
    on_progress: Progress = lambda stage, elapsed_s: None,
    builder: Sequence[str] = BUILDER,
) -> TensorRtArtifact:
    """The request's artifact, built if need be. Blocks for minutes then: call it where no frame waits.

    Of processes and threads that want the same artifact, one builds and the others wait for it. `on_progress`
    is called with what is being done and the seconds so far, at least once a second; what it raises stops the
    build and comes out here. A builder whose parent is killed goes on, for `timeout_s` at most, so that the
    next process finds its artifact. Raises BuildFailed with the builder's last words, BuildTimeout.
    """
    start = time.monotonic()
    while (artifact := find_artifact(request, folder)) is None:
        with _claim(request, folder) as lock:
            if lock is not None:
                if (artifact := find_artifact(request, folder)) is None:
                    artifact = _build(request, folder, lock, timeout_s, start, on_progress, builder)
                return artifact
        elapsed_s = time.monotonic() - start
        if elapsed_s > timeout_s:
            raise BuildTimeout(f"{request}: another process has not built it within {timeout_s:.0f} s")
        on_progress("waiting for another process that builds it", elapsed_s)
        time.sleep(_WAIT_S)
    return artifact


@contextmanager
def _claim(request: BuildRequest, folder: Path) -> Iterator[int | None]:
    """The right to build, as a locked file; None where another has it. A process that dies gives it back."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".lock-{request.digest[:16]}").open("w")
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
    lock: int,
    timeout_s: float,
    start: float,
    on_progress: Progress,
    builder: Sequence[str],
) -> TensorRtArtifact:
    remaining_s = timeout_s - (time.monotonic() - start)
    command = [*builder, str(folder), f"{max(1, remaining_s):.0f}"]
    sweep(request, folder)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[lock],  # an orphan keeps its right to build
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
