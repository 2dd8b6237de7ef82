"""The cache of TensorRT engines, and the process that builds one; a small program stands for the compiler."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends.tensorrt.builds import ensure_artifact, load_artifact
from engine.backends.tensorrt.request import Sizes
from engine.backends.tensorrt.store import (
    ENGINE,
    MANIFEST,
    TensorRtArtifact,
    find_artifact,
    save_artifact,
)
from engine.errors import BuildFailed, BuildTimeout, PlanRefused
from tests.conftest import ROOT
from tests.engine.backends.artifacts import FACTS, REQUEST, corrupt_engine

TIMEOUT_S = 60.0


# What a stand-in for the compiler begins with.
PROLOGUE = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from engine.backends.tensorrt.request import BuildRequest
from engine.backends.tensorrt.store import save_artifact
folder = Path(sys.argv[1])
request = BuildRequest.from_json(sys.stdin.read())
facts = {FACTS!r}
def note(name): (folder / f"{{name}}.{{os.getpid()}}").touch()
"""
BUILDS = (
    PROLOGUE
    + 'note("built")\nprint("compiling", flush=True)\nsave_artifact(request, folder, b"engine", facts)\n'
)
HANGS = PROLOGUE + 'note("hangs")\nprint("compiling", flush=True)\ntime.sleep(600)\n'
Builder = Callable[[str], Sequence[str]]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """The command of a stand-in with that source."""

    def make(source: str) -> Sequence[str]:
        script = tmp_path / "builder.py"
        script.write_text(source)
        return [sys.executable, str(script)]

    return make


def pids(folder: Path, name: str) -> list[int]:
    return [int(path.suffix[1:]) for path in folder.glob(f"{name}.*")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith((".building", ".removed"))]


def test_an_artifact_is_built_once_and_found_afterwards(folder: Path, builder: Builder) -> None:
    stages: list[str] = []

    def on_progress(stage: str, elapsed_s: float) -> None:
        stages.append(stage)

    command = builder(BUILDS.replace("save_artifact(req", "time.sleep(0.2); save_artifact(req"))
    artifact = ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, on_progress=on_progress, builder=command)
    assert artifact.path.read_bytes() == b"engine"
    assert artifact.manifest["request"] == REQUEST.key()
    assert stages[0] == "starting the builder"
    assert stages[-1] == "compiling"
    again = ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, builder=["no-such-program"])
    assert again == artifact
    assert len(pids(folder, "built")) == 1
    assert not leftovers(folder)


def test_a_build_that_takes_too_long_is_stopped(folder: Path, builder: Builder) -> None:
    expected = r"building net at 640x360 on NVIDIA L4 was stopped after 2 s while compiling"
    with pytest.raises(BuildTimeout, match=expected):
        ensure_artifact(REQUEST, folder, timeout_s=2, builder=builder(HANGS))
    (pid,) = pids(folder, "hangs")
    assert not alive(pid)
    assert find_artifact(REQUEST, folder) is None


def test_who_gives_up_stops_the_build(folder: Path, builder: Builder) -> None:
    class GivenUp(Exception):
        pass

    def on_progress(stage: str, elapsed_s: float) -> None:
        if stage == "compiling":
            raise GivenUp

    with pytest.raises(GivenUp):
        ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, on_progress=on_progress, builder=builder(HANGS))
    (pid,) = pids(folder, "hangs")
    assert not alive(pid)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            PROLOGUE + "print('plenty of words', file=sys.stderr)\nraise RuntimeError('out of GPU memory')",
            "RuntimeError: out of GPU memory",
        ),
        ("import sys; sys.exit(3)", r"\(exit status 3\): it said nothing"),
        (PROLOGUE + "os.kill(os.getpid(), 9)", r"\(SIGKILL\): it said nothing"),
        (PROLOGUE, "left no engine that is what was asked for"),
    ],
    ids=["error", "status", "signal", "nothing"],
)
def test_a_failed_build_says_what_its_builder_said_last(
    folder: Path, builder: Builder, source: str, reason: str
) -> None:
    with pytest.raises(BuildFailed, match=reason) as caught:
        ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, builder=builder(source))
    assert "net at 640x360 on NVIDIA L4" in str(caught.value)
    assert "\n" not in str(caught.value)
    ensure_artifact(
        REQUEST, folder, timeout_s=TIMEOUT_S, builder=builder(BUILDS)
    )  # nothing stands in its way


def test_what_a_killed_builder_left_is_removed(folder: Path, builder: Builder) -> None:
    halfway = PROLOGUE + (
        "from engine.backends.tensorrt.store import staging\n"
        "with staging(request, folder) as partial:\n"
        "    (partial / 'engine.plan').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    with pytest.raises(BuildFailed):
        ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, builder=builder(halfway))
    assert not leftovers(folder)
    assert find_artifact(REQUEST, folder) is None


def shorten_engine(entry: Path) -> None:
    (entry / ENGINE).write_bytes(b"eng")


def lose_engine(entry: Path) -> None:
    (entry / ENGINE).unlink()


def lose_manifest(entry: Path) -> None:
    (entry / MANIFEST).unlink()


def shorten_manifest(entry: Path) -> None:
    (entry / MANIFEST).write_text((entry / MANIFEST).read_text()[:40])


def other_gpu(entry: Path) -> None:
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["request"]["target"]["gpu"] = "Tesla T4"
    (entry / MANIFEST).write_text(json.dumps(manifest))


def unmeasured(entry: Path) -> None:
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["performance"] = {}
    (entry / MANIFEST).write_text(json.dumps(manifest))


def other_format(entry: Path) -> None:
    (entry / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        corrupt_engine,
        shorten_engine,
        lose_engine,
        lose_manifest,
        shorten_manifest,
        other_gpu,
        unmeasured,
        other_format,
    ],
)
def test_a_damaged_or_foreign_artifact_is_built_again(
    folder: Path, builder: Builder, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    save_artifact(REQUEST, folder, b"engine", FACTS)
    damage(folder / REQUEST.digest)
    with caplog.at_level(logging.WARNING):
        artifact = ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, builder=builder(BUILDS))
    assert artifact.path.read_bytes() == b"engine"
    assert len(pids(folder, "built")) == 1
    assert "will be built again" in caplog.text
    assert not leftovers(folder)


def test_threads_that_want_one_artifact_build_it_once(folder: Path, builder: Builder) -> None:
    command = builder(BUILDS.replace("save_artifact(req", "time.sleep(0.5); save_artifact(req"))
    artifacts = []

    def want() -> None:
        artifacts.append(ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, builder=command))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(artifacts) == 4
    assert all(artifact == artifacts[0] for artifact in artifacts)
    assert len(pids(folder, "built")) == 1


def test_who_waits_for_another_process_is_told_so_and_gives_up_in_time(
    folder: Path, builder: Builder
) -> None:
    """A process builds; it is killed, and its builder goes on: whoever comes next waits for that one."""
    released = folder / "go-on"
    command = builder(
        PROLOGUE + f'note("built")\nwhile not os.path.exists({str(released)!r}): time.sleep(0.01)\n'
        'save_artifact(request, folder, b"engine", facts)\n'
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pathlib import Path\n"
            "from engine.backends.tensorrt.request import BuildRequest\n"
            "from engine.backends.tensorrt.builds import ensure_artifact\n"
            "request = BuildRequest.from_json(sys.argv[1])\n"
            "ensure_artifact(request, Path(sys.argv[2]), timeout_s=60, builder=sys.argv[3:])",
            REQUEST.to_json(),
            str(folder),
            *command,
        ],
        cwd=ROOT,
    )
    wait_until(lambda: pids(folder, "built"))
    parent.kill()
    parent.wait()
    with pytest.raises(BuildTimeout, match="another process has not built it within 1 s"):
        ensure_artifact(REQUEST, folder, timeout_s=1, builder=command)
    stages: list[str] = []

    def on_progress(stage: str, elapsed_s: float) -> None:
        stages.append(stage)
        released.touch()

    artifact = ensure_artifact(REQUEST, folder, timeout_s=TIMEOUT_S, on_progress=on_progress, builder=command)
    assert artifact.path.read_bytes() == b"engine"
    assert set(stages) == {"waiting for another process that builds it"}
    assert len(pids(folder, "built")) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildFailed, match=r"file/artifacts can't be written: Not a directory"):
        ensure_artifact(REQUEST, tmp_path / "file" / "artifacts", timeout_s=1)


class Runtime:
    """Loads plans, and refuses those with such content."""

    def __init__(self, *refused: bytes) -> None:
        self.refused = refused
        self.loaded: list[bytes] = []

    def __call__(self, artifact: TensorRtArtifact) -> bytes:
        plan = artifact.path.read_bytes()
        self.loaded.append(plan)
        if plan in self.refused:
            raise PlanRefused("TensorRT 11 refuses it: the plan was made by another")
        return plan


def test_a_plan_that_the_runtime_refuses_is_built_once_more(folder: Path, builder: Builder) -> None:
    """Its bytes are those of its manifest, which says that it is for this GPU and these libraries."""
    save_artifact(REQUEST, folder, b"old", FACTS)
    runtime = Runtime(b"old")
    for _ in range(2):
        plan = load_artifact(REQUEST, folder, runtime, timeout_s=TIMEOUT_S, builder=builder(BUILDS))
        assert plan == b"engine"
    assert runtime.loaded == [b"old", b"engine", b"engine"]
    assert len(pids(folder, "built")) == 1
    assert not leftovers(folder)


def test_a_plan_that_is_refused_again_is_given_up(folder: Path, builder: Builder) -> None:
    save_artifact(REQUEST, folder, b"old", FACTS)
    runtime = Runtime(b"old", b"engine")
    with pytest.raises(PlanRefused, match="made by another"):
        load_artifact(REQUEST, folder, runtime, timeout_s=TIMEOUT_S, builder=builder(BUILDS))
    assert runtime.loaded == [b"old", b"engine"]
    assert len(pids(folder, "built")) == 1


def test_one_gpu_builds_one_engine_at_a_time(folder: Path, builder: Builder) -> None:
    """TensorRT chooses kernels by how fast they are: one build beside another would measure that one, too."""
    command = builder(
        PROLOGUE + "assert not list(folder.glob('busy')), 'beside another'\n(folder / 'busy').touch()\n"
        "time.sleep(0.3)\n(folder / 'busy').unlink()\n"
        'save_artifact(request, folder, b"engine", facts)\n'
    )
    sizes = [(640, 360), (640, 480), (1280, 720)]
    stages: list[str] = []
    built: list[TensorRtArtifact] = []

    def build(width: int, height: int) -> None:
        request = replace(REQUEST, sizes=Sizes.only(width, height))
        hear = lambda stage, elapsed_s: stages.append(stage)  # noqa: E731
        built.append(ensure_artifact(request, folder, timeout_s=TIMEOUT_S, on_progress=hear, builder=command))

    threads = [threading.Thread(target=build, args=size) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 3
    assert "waiting for another build on this GPU" in stages


def test_looking_for_a_artifact_needs_no_torch() -> None:
    code = "import sys, engine.backends.tensorrt.builds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0
