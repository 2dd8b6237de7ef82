"""What a stream has taken of its process is given back as it ends, however the collector is getting on."""

import gc
import os

import pytest
from av.codec import CodecContext

from tests.server.clips import write_clip
from tests.server.worker.test_host import SMALL, Loader, descriptors, host, until  # noqa: F401


@pytest.fixture
def uncollected(monkeypatch):
    """The collector does nothing, as for who asks while another thread is at it."""
    gc.collect()
    monkeypatch.setattr(gc, "collect", lambda: 0)
    gc.disable()
    yield
    gc.enable()


def native_threads() -> int:
    """Those of codecs and engines, too."""
    return len(os.listdir("/proc/self/task"))


def codecs() -> int:
    # Not isinstance, which asks every object for its class: PyTorch has one that warns of being asked.
    return sum(issubclass(type(known), CodecContext) for known in gc.get_objects())


def test_codecs_and_engines_go_with_their_stream(host, uncollected, tmp_path):  # noqa: F811
    clip = str(write_clip(tmp_path / "clip.mp4", width=160, height=96, frames=50, audio="aac"))
    loads, kept = Loader(), codecs()
    process = host(loads)
    for source in (SMALL, clip):  # what libraries keep once they have begun
        process.stream("first", source=source).frames(3).stop()
    threads, files = native_threads(), descriptors()
    for _ in range(2):
        for source in (SMALL, clip):
            process.stream("good", source=source).frames(3).stop()
        process.stream("too large", source=clip, max_width=64).until_closed()
    until(lambda: native_threads() <= threads and descriptors() <= files, "threads and files are gone")
    until(lambda: codecs() <= kept, "codecs are closed")
    until(lambda: not any(engine() for engine in loads.loaded), "engines are let go")
