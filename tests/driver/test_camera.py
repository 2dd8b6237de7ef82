"""libav's Video4Linux on a camera that is none: a library answers for /dev/zero."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server.worker.ingest.open import open_source
from server.worker.ingest.source import SourceLost, SourceUnusable
from tests.conftest import ROOT, missing_peer

SCENE = """
import json, sys
from tests.server.worker.live_ingest import Ingest
source = Ingest(sys.argv[1])
source.until(lambda s: s.failure or s.lost)
source.end()
print(json.dumps({
    "sizes": sorted({p.planes.y.shape for p in source.pictures}),
    "lumas": [int(p.planes.y.mean()) for p in source.pictures],
    "end": str(source.failure or source.lost[0].reason),
}))
"""


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        missing_peer("a C compiler", "apt-get install gcc")
    library = tmp_path_factory.mktemp("camera") / "camera.so"
    source = Path(__file__).parent / "camera.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def played(camera: Path, url: str) -> dict:
    environment = os.environ | {"LD_PRELOAD": str(camera), "CAMERA_FRAMES": "20"}
    command = [sys.executable, "-c", SCENE, url]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_pictures_come_as_it_makes_them_until_it_is_unplugged(camera: Path) -> None:
    seen = played(camera, "v4l2:/dev/zero?size=640x480&fps=25&format=yuyv422")
    assert seen["sizes"] == [[180, 320]], "a size that it has not is the next"
    assert seen["lumas"] == sorted(seen["lumas"])
    assert len(set(seen["lumas"])) > 12, "most of its 20 pictures; the first are seen while it is opened"
    assert seen["end"] == "/dev/zero: the device has gone"


def test_a_format_that_it_has_not_is_named(camera: Path) -> None:
    assert played(camera, "v4l2:/dev/zero?format=mjpeg")["end"] == "/dev/zero: the device has no format=mjpeg"


@pytest.mark.parametrize(
    ("path", "error", "why"),
    [
        ("/dev/video99", SourceLost, "there is no such device"),
        ("/dev/null", SourceUnusable, "is no video device"),
        ("/dev/shm", SourceUnusable, "is no device"),
    ],
)
def test_what_is_no_camera_is_named(path: str, error: type[Exception], why: str) -> None:
    source = open_source(
        f"v4l2:{path}", policy=None, loop=True, max_size=(64, 64), timeout_s=1, stop=threading.Event()
    )
    with pytest.raises(error, match=f"^{path}: {why}$"):
        source.open()
