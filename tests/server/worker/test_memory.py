"""What fails for want of memory is known as that, whatever a library calls it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from server.worker.memory import SharedBound, lacks_memory
from tests.server.clips import write_clip

# In a process of its own: fails under a bound so many megabytes above what it holds, and says what it was.
_SCRIPT = """
import sys
import av
from server.worker.encode.h264 import EncoderFormat, H264Encoder
from server.worker.process.picture import ColourTags
from server.worker.memory import held_bytes, lacks_memory, limit_memory

def encode():
    tags = ColourTags(range=0, matrix=2, primaries=2, transfer=2)
    H264Encoder(EncoderFormat(
        encoder="libx264", preset="superfast", width=3840, height=2160, fps=25, bitrate_bps=10_000_000,
        keyframe_interval_s=2.0, sample_aspect_ratio=(1, 1), tags=tags,
    ))

def decode():
    for _ in container.decode(video=0):
        pass

container = av.open(sys.argv[3])
limit_memory(held_bytes() + (int(sys.argv[2]) << 20))
try:
    {"encode": encode, "decode": decode}[sys.argv[1]]()
except Exception as exc:
    print(type(exc).__name__, lacks_memory(exc))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "large.mp4", width=3840, height=2160, frames=3)


@pytest.mark.parametrize(("what", "megabytes"), [("encode", 16), ("decode", 4), ("decode", 20)])
def test_a_library_that_gets_no_memory(clip, what, megabytes):
    command = [sys.executable, "-c", _SCRIPT, what, str(megabytes), str(clip)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout.split()[1:] == ["True"], said


@pytest.mark.parametrize(
    "words",
    [
        "Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc",
        "Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 369100800 bytes of memory",
        "can't start new thread",
    ],
)
def test_words_that_say_it(words):
    failure = ValueError("openvino can't compile int8 here")
    failure.__cause__ = RuntimeError(words)
    assert lacks_memory(failure)


@pytest.mark.parametrize("failure", [RuntimeError("wrong shape"), ValueError("allocated"), OSError(2, "")])
def test_other_failures(failure):
    assert not lacks_memory(failure)


def test_the_streams_of_a_process_are_bounded_together():
    def bound() -> int:
        return resource.getrlimit(resource.RLIMIT_DATA)[0]

    none, shared = bound(), SharedBound()
    with shared.raised_by(8 << 30):
        assert bound() == 8 << 30
        with shared.raised_by(4 << 30):
            assert (bound(), shared.streams) == (12 << 30, 2)
            with shared.raised_by(0):
                assert bound() == none
        assert bound() == 8 << 30
    assert bound() == none
