"""A worker that follows another: viewers have seen pictures, and wait for the next."""

import threading

from server.wire.messages import EngineLoad
from tests.server.worker.test_host import TIMEOUT_S, Loader, host, until  # noqa: F401
from tests.server.worker.worker_process import JOB


def test_the_engine_of_the_worker_before_is_loaded_while_the_source_is_opened(host):  # noqa: F811
    """Which nobody answers for here."""
    ahead = JOB.engine(width=80, height=48, matrix="bt601", full_range=False)
    loader = Loader()
    process = host(loader)
    line = process.stream("a", source="rtsp://127.0.0.1:1/none", engine_ahead=ahead)
    until(lambda: loader.loaded, "it is loaded")
    process.stream("b").frames(5)
    assert len(loader.loaded) == 1, "it is the engine for such pictures"
    line.stop()


def test_viewers_who_wait_after_a_death_see_bicubic_until_the_engine_is_there(host):  # noqa: F811
    """They would wait for longer than this test does, if it were the first worker."""
    there = threading.Event()

    def load_by(job, on_progress):
        def load(width, height, colour):
            there.wait()
            return Loader()(job, on_progress)(width, height, colour)

        return load

    line = host(load_by).stream("a", video_after=0, engine_patience_s=1.25 * TIMEOUT_S)
    line.frames(3)
    assert line.of(EngineLoad)[-1].state == "loading"
    there.set()
    line.until(lambda line: line.of(EngineLoad)[-1].state == "ready")
    line.stop()
