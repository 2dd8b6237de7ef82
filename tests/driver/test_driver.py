"""libav's own NVENC, NVDEC and CUDA code, on a driver that says what it was asked for.

What no test here can show is what hardware does: whether a stream is decodable, and when work is done.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, missing_peer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What a scene returned, what the driver was asked for in order, and what was logged."""

    result: Any
    calls: list[tuple[str, tuple[int, ...]]]
    log: list[dict[str, object]]

    def of(self, name: str) -> list[tuple[int, ...]]:
        return [numbers for call, numbers in self.calls if call == name]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        missing_peer("a C compiler", "apt-get install gcc")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-w",
        "-O1",
        "-pthread",
        "-o",
        str(library),
        str(HERE / "driver.c"),
    ]
    subprocess.run(command, check=True)
    for name in ("libnvcuvid.so.1", "libnvidia-encode.so.1"):
        (folder / name).symlink_to(library.name)
    return folder


@pytest.fixture
def scene(libraries: Path, tmp_path: Path) -> Any:
    """scene(name, **of the driver) → Outcome. By default it is as PyTorch leaves it: its context is open."""

    def run(name: str, **driver: int) -> Outcome:
        calls = tmp_path / "calls"
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(libraries),
            "FAKE_DRIVER_LOG": str(calls),
            "FAKE_DRIVER_ACTIVE": "1",
            "PYTHONPATH": str(ROOT),
            **{f"FAKE_DRIVER_{key.upper()}": str(value) for key, value in driver.items()},
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.driver.scenes", name],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []
        return Outcome(
            json.loads(done.stdout),
            [(line[0], tuple(map(int, line[1:]))) for line in lines],
            [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")],
        )

    return run


def test_nvenc_reads_surfaces_and_host_frames_right_by_one_encoder(scene) -> None:
    """A slate used to open a second encoder, with a context of its own; 854 pixels are no pitch for NVENC."""
    outcome = scene("surfaces_and_host_frames")
    assert outcome.result == {"same": [True] * 4, "keys": [True, False, False, False]}
    assert outcome.of("session") == [(1, 0, 0)], "one session, in the primary context"
    assert outcome.of("context-created") == []
    assert all(pitch == 1024 and height == 480 for _, pitch, height in outcome.of("registered"))


def test_an_encoder_that_began_on_the_host_goes_on_with_surfaces(scene) -> None:
    outcome = scene("host_frames_first")
    assert outcome.result == {"same": [True] * 3, "keys": [True, False, False]}
    assert (outcome.of("session"), outcome.of("context-created")) == ([(1, 0, 0)], [])


@pytest.mark.parametrize("active", [0, 1])
def test_it_does_not_matter_who_opens_the_primary_context_first(scene, active: int) -> None:
    """libav refuses to share what PyTorch has opened; and must not end what PyTorch still uses."""
    outcome = scene("surfaces_and_host_frames", active=active)
    assert outcome.of("session") == [(1, 0, 0)]
    assert outcome.of("context-destroyed") == []


def test_encoders_do_not_meet_on_the_default_stream(scene) -> None:
    outcome = scene("two_streams")
    created = [(stream, flags) for stream, flags, _ in outcome.of("stream-created")]
    assert [flags for _, flags in created] == [1, 1], "streams that the default one does not hold up"
    assert [(i, o) for i, o, _ in outcome.of("io-stream")] == [(stream, stream) for stream, _ in created]


def test_looking_whether_nvenc_opens_costs_no_context(scene) -> None:
    outcome = scene("chosen")
    assert (outcome.result, outcome.of("context-created")) == ("h264_nvenc", [])


def test_a_key_frame_is_not_as_large_as_it_likes(scene) -> None:
    """1 Mbit/s at 25 frames a second. With `cq` the VBV was 0: no bound."""
    outcome = scene("host_frames_first")
    assert outcome.of("rate") == [(1, 1_000_000, 1_000_000)], "VBR"
    [(vbv, least_qp, bits)] = outcome.of("vbv")
    assert (vbv, least_qp) == (2 * 1_000_000 // 25, 20)
    assert bits & 8, "spatial AQ"


NVENC, X264 = "h264_nvenc", "libx264"


def test_a_size_that_nvenc_refuses_goes_to_x264_until_the_next(scene) -> None:
    outcome = scene("sizes")
    by = [NVENC, X264, NVENC, X264]
    assert outcome.result == [[encoder, key] for encoder in by for key in (True, False)]
    refused = [event for event in outcome.log if event["event"] == "NVENC refused, libx264 encodes"]
    assert [event["size"] for event in refused] == ["4352x640", "128x48"]


def test_one_session_more_than_the_gpu_has_goes_to_x264(scene) -> None:
    assert scene("breaks", sessions=0).result == [[X264, n == 0] for n in (0, 1, 2)] * 2


def test_where_nvenc_breaks_the_picture_is_shown_all_the_same(scene) -> None:
    """The stream ended. It is tried again with the next format, not before."""
    outcome = scene("breaks", fails_at=1)
    assert outcome.result == [
        *([NVENC, True], [X264, True], [X264, False]),
        *([NVENC, True], [NVENC, False], [NVENC, False]),
    ]


def test_the_surface_at_which_nvenc_breaks_is_downloaded(scene) -> None:
    outcome = scene("breaks_on_gpu", fails_at=1)
    assert outcome.result["frames"] == 2
    assert outcome.result["error"] < 3


def test_the_gateway_hears_which_encoder_it_is(scene) -> None:
    outcome = scene("published", fails_at=2)
    assert outcome.result == [NVENC, True, False, X264, True, False, False]


def test_av1_is_decoded_on_the_cpu_where_the_gpu_has_none(scene) -> None:
    """libav's `av1` is hardware only: it called every packet corrupt, and the source was opened for ever."""
    outcome = scene("av1_clip")
    assert outcome.result == [5, "libdav1d"]
    [said] = [event for event in outcome.log if event["event"] == "decoding on the CPU"]
    assert (said["codec"], said["reason"]) == (
        "libdav1d",
        "this GPU's NVDEC takes no av1 of 4:2:0 and 8 bits",
    )


def test_what_nvdec_takes_is_known_by_codec_profile_and_size(scene) -> None:
    assert scene("decoders").result == {
        "h264 yuv420p 1920": "",
        "h264 yuv420p10le 1920": "this GPU's NVDEC takes no h264 of 4:2:0 and 10 bits",
        "hevc yuv420p10le 1920": "",
        "hevc yuv444p 1920": "this GPU's NVDEC takes no hevc of 4:4:4 and 8 bits",
        "libdav1d yuv420p 1920": "this GPU's NVDEC takes no av1 of 4:2:0 and 8 bits",
        "h264 yuv420p 8192": "this GPU's NVDEC takes h264 from 48×48 to 4096×4096, and not 8192×1080",
    }
