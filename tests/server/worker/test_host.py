"""Several streams in one process: what they share, and that none takes another along."""

import dataclasses
import gc
import os
import resource
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import DeviceFailed
from engine.frame import Engine
from engine.load import load_engine
from engine.performance import LanePerformance, Performance
from server.wire.codec import Decoder, encode
from server.wire.messages import (
    EngineLoad,
    GpuUse,
    Heartbeat,
    JobImpossible,
    Message,
    Prepare,
    Stop,
    VideoPacket,
    Watch,
    WorkerBroken,
)
from server.worker import pulse
from server.worker.cost import Account
from server.worker.engines import engine_loader
from server.worker.host import Host
from server.worker.process.bicubic import BicubicEngine, BicubicLane, bicubic_engine
from server.worker.shared import SharedEngines
from tests.server.worker.worker_process import JOB, numbers

TIMEOUT_S = 40.0
SMALL = "synthetic:?size=80x48&fps=25"


class Lane(BicubicLane):
    def __init__(self, spec, after_frames, fail) -> None:
        super().__init__(spec)
        self._left = after_frames
        self._fail = fail

    def wait(self):
        self._left -= 1
        if self._left < 0:
            self._fail()
        return super().wait()


class Failing(BicubicEngine):
    """One whose lanes fail after some frames."""

    def __init__(self, spec, fail) -> None:
        super().__init__(spec)
        self._fail = fail

    def lane(self):
        return Lane(self.spec, 5, self._fail)


class Loader:
    """Bicubic in the place of networks, which takes no time to load; `fail` is what those of "bad" do, whose
    engine must differ from the others'."""

    def __init__(self, fail=None) -> None:
        self.loaded: list[weakref.ref[Engine]] = []
        self._fail = fail

    def __call__(self, job, on_progress):
        def load(width, height, colour):
            engine = bicubic_engine(width, height, 2)
            if job.stream == "bad":
                engine = Failing(engine.spec, self._fail)
            self.loaded.append(weakref.ref(engine))
            return engine

        return load


class Line:
    """The gateway's end of one stream."""

    def __init__(self, host: "Process", name: str, before=(), **changes) -> None:
        self.socket, theirs = socket.socketpair()
        self._decoder = Decoder()
        self.messages: list[Message] = []
        host.connections.append(theirs)
        host.more.set()
        # Unbounded: the bound would be on this process, with all that it holds of other tests.
        job = replace(JOB, stream=name, **{"source": SMALL, "worker_memory_bytes": 0, **changes})
        for message in (*before, job, Watch(renditions=("upscaled",))):
            self.send(message)

    def send(self, message: Message) -> None:
        self.socket.sendall(encode(message))

    def of(self, kind: type) -> list:
        return [message for message in self.messages if isinstance(message, kind)]

    def until(self, done) -> "Line":
        deadline = time.monotonic() + TIMEOUT_S
        while not done(self):
            assert self._read(deadline), f"it has ended: {self.messages[-3:]}"
        return self

    def frames(self, count: int) -> "Line":
        """So many more."""
        seen = len(self.of(VideoPacket))
        return self.until(lambda line: len(line.of(VideoPacket)) >= seen + count)

    def until_closed(self, timeout_s: float = TIMEOUT_S) -> "Line":
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        self.socket.close()
        return self

    def stop(self) -> None:
        self.send(Stop())
        self.until_closed()

    def _read(self, deadline: float) -> bool:
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        data = self.socket.recv(1 << 16)
        self.messages += self._decoder.feed(data)
        return bool(data)


class Process:
    """A host in the process of the tests."""

    def __init__(self, load_by) -> None:
        self.connections: list[socket.socket] = []
        self.more = threading.Event()
        self.retired = False
        self._over = False
        self._thread = threading.Thread(target=Host(load_by, retire=self._retire).run, args=(self._given(),))
        self._thread.start()
        self.lines: list[Line] = []

    def stream(self, name: str, *before: Message, **changes) -> Line:
        self.lines.append(Line(self, name, before, **changes))
        return self.lines[-1]

    def close(self) -> None:
        for line in self.lines:
            line.socket.close()
        self._over = True
        self.more.set()
        self._thread.join()

    def _given(self) -> Iterator[socket.socket]:
        while not self._over:
            self.more.wait()
            self.more.clear()
            while self.connections:
                yield self.connections.pop(0)

    def _retire(self) -> None:
        self.retired = True


@pytest.fixture
def host():
    started: list[Process] = []

    def start(load_by) -> Process:
        started.append(Process(load_by))
        return started[-1]

    yield start
    for process in started:
        process.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {[thread.name for thread in threading.enumerate()]}"
        time.sleep(0.02)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_streams_of_one_model_and_size_share_an_engine_which_goes_with_the_last(host):
    loads = Loader()
    process = host(loads)
    first, second = process.stream("a"), process.stream("b")
    for line in (first, second):
        line.frames(5)
    assert len(loads.loaded) == 1, "loaded once, though both asked at once"
    process.stream("c", source="synthetic:?size=96x48&fps=25").frames(5).stop()
    process.stream("d", engine_threads=2).frames(5).stop()
    assert len(loads.loaded) == 3, "of another size, and with other threads"
    first.stop()
    second.frames(5)
    assert loads.loaded[0]() is not None
    second.stop()
    until(lambda: not any(engine() for engine in loads.loaded), "nobody has the engines any more")


def test_streams_over_one_openvino_engine_show_each_its_own_pictures(host):
    process = host(engine_loader)
    lines = [process.stream(name, source="synthetic:?size=160x96&fps=25") for name in "abc"]
    for line in lines:
        line.frames(20)
    for line in lines:
        seen = numbers(line.of(VideoPacket), 2)
        assert None not in seen
        assert seen == sorted(set(seen)), "its pictures, in order"


def test_what_is_prepared_becomes_the_engine_of_the_stream_and_of_others(host):
    def none(job, on_progress):
        raise AssertionError("it is there")

    prepared = Prepare(
        model=JOB.model,
        backend=None,
        lanes=JOB.lanes,
        engine_threads=JOB.engine_threads,
        width=160,
        height=96,
        matrix="bt601",
        full_range=False,
    )
    process = host(none)
    wide = "synthetic:?size=160x96&fps=25"
    process.stream("a", prepared, source=wide).frames(5)
    process.stream("b", source=wide).frames(5)


def test_thirty_streams_come_and_go_and_leave_nothing_behind(host):
    process = host(Loader())
    stays = process.stream("stays").frames(5)
    for _ in range(2):  # what libraries keep once they have begun
        process.stream("first").frames(3).stop()
    threads, files = threading.active_count(), descriptors()
    for number in range(10):
        lines = [process.stream(f"{number}-{n}") for n in range(3)]
        for line in lines:
            line.frames(3)
        for line in lines:
            line.stop()
    until(lambda: threading.active_count() <= threads and descriptors() <= files, "they have left")
    stays.frames(5)


def test_a_stream_that_breaks_ends_alone_and_says_why(host):
    def break_down():
        raise RuntimeError("a bug")

    process = host(Loader(break_down))
    good, bad = process.stream("good").frames(5), process.stream("bad", engine_threads=2)
    bad.until_closed()
    assert bad.of(WorkerBroken) == [WorkerBroken(reason="the worker broke: RuntimeError: a bug")]
    impossible = process.stream("never", source="/nowhere/clip.mp4").until_closed()
    assert "no such file" in impossible.of(JobImpossible)[0].reason
    good.frames(10)
    assert not process.retired


def test_a_gpu_that_fails_one_stream_gets_no_further_one_in_this_process(host):
    def lose_device():
        raise DeviceFailed("the GPU was lost")

    process = host(Loader(lose_device))
    bad = process.stream("bad", engine_threads=2).until_closed()
    assert bad.of(WorkerBroken) == [WorkerBroken(reason="the GPU was lost")]
    assert process.retired


def test_a_stream_that_hangs_says_so_and_is_there_until_its_thread_has_ended(host, monkeypatch):
    monkeypatch.setattr(pulse, "HANG_S", 0.5)
    release = threading.Event()
    process = host(Loader(release.wait))
    good, bad = process.stream("good").frames(5), process.stream("bad", engine_threads=2)
    bad.until(lambda line: line.of(WorkerBroken))
    assert "the worker's collect thread hangs" in bad.of(WorkerBroken)[0].reason
    good.frames(10)
    with pytest.raises(TimeoutError):
        bad.until_closed(0.5)
    release.set()
    bad.until_closed()


def test_what_the_process_takes_is_divided_among_its_streams(host):
    process = host(Loader())
    first, second = process.stream("a"), process.stream("b")
    for line in (first, second):
        line.until(lambda line: len(line.of(Heartbeat)) >= 4)
    parts = [line.of(Heartbeat)[-1] for line in (first, second)]
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert sum(beat.rss_bytes for beat in parts) == pytest.approx(resident, rel=0.2)


def test_the_gateway_hears_what_a_stream_takes_of_a_gpu_where_that_was_measured(host):
    def measured(lane_bytes: int) -> LanePerformance:
        return LanePerformance(
            best=2, frame_ms={1: 5.0, 2: 4.0}, p99_ms={1: 5.0, 2: 8.0}, lane_bytes=lane_bytes
        )

    def load_by(job, on_progress):
        def load(width, height, colour):
            engine = bicubic_engine(width, height, 2)
            kinds = {"host": measured(100), "surface": measured(50)}
            performance = Performance(parity_db=60.0, engine_bytes=1000, **kinds)
            engine.spec = dataclasses.replace(engine.spec, performance=performance)
            return engine

        return load

    process = host(load_by)
    for lanes, taken in ((0, 200), (3, 300)):
        line = process.stream(f"{lanes} lanes", lanes=lanes)
        line.until(lambda line: [load for load in line.of(EngineLoad) if load.state == "ready"])
        use = line.of(EngineLoad)[-1].gpu
        assert use == GpuUse(frame_s=0.004, engine_bytes=1000, lane_bytes=taken)


def test_an_account_divides_cpu_time_by_work_and_loses_none():
    taken = [1.0]
    account = Account(lambda: taken[0])
    done = {"a": 0.0, "b": 0.0}
    a = account.open(lambda: done["a"])
    assert account.report(a)[0] == 1.0, "the process's start"
    b = account.open(lambda: done["b"])
    taken[0], done["a"], done["b"] = 5.0, 30.0, 10.0
    assert account.report(a)[0] == 4.0
    assert account.report(b)[0] == 1.0
    taken[0] = 6.0
    assert account.report(a)[0] + account.report(b)[0] == 6.0, "nobody worked: evenly"
    account.close(a)
    taken[0] = 7.0
    assert account.report(b)[0] == 2.5


def test_who_waits_for_an_engine_hears_how_far_it_is_and_gets_its_failure():
    begun, go_on = threading.Event(), threading.Event()
    heard: list[str] = []
    failures: list[str] = []
    engines = SharedEngines()

    def load(say):
        say("building")
        begun.set()
        go_on.wait(TIMEOUT_S)
        say("measuring")
        raise DeviceFailed("lost")

    def ask(on_progress):
        try:
            engines.get("key", load, on_progress)
        except DeviceFailed as exc:
            failures.append(str(exc))

    first = threading.Thread(target=ask, args=(lambda _: None,))
    first.start()
    begun.wait(TIMEOUT_S)
    waited = threading.Thread(target=ask, args=(heard.append,))
    waited.start()
    while not heard:
        time.sleep(0.01)
    go_on.set()
    first.join()
    waited.join()
    assert heard == ["building", "measuring"]
    assert failures == ["lost", "lost"]
    engine = bicubic_engine(32, 32, 2)
    assert engines.get("key", lambda say: engine, lambda _: None) is engine, "the next one tries again"


def test_each_stream_joins_the_same_shared_engine():
    engines, loaded = SharedEngines(), []

    def load(say):
        loaded.append(engine := load_engine("awsrn-live-x2", width=32, height=32, backend="openvino"))
        return engine

    for _ in range(2):
        streams = [engines.get("key", load, lambda _: None) for _ in range(3)]
        assert len({id(stream) for stream in streams}) == 3
        assert all(stream.spec is loaded[-1].spec for stream in streams)
        del streams
        gone = weakref.ref(loaded[-1])
        loaded[-1] = None
        gc.collect()
        assert gone() is None
    assert len(loaded) == 2, "once for all, and again once nobody has it"
