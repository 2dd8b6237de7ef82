import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from engine.errors import EngineError
from server.wire.clock import now_ns
from server.wire.logs import get_logger
from server.wire.messages import VideoPacket
from server.wire.synthetic import SyntheticFormat
from server.worker.encode.video import VideoPublisher
from server.worker.ingest.synthetic import read_frame_number, synthetic_frame
from server.worker.process.mailbox import Closed
from server.worker.process.picture import ColourTags, Picture, PictureFormat, frame_from_planes, plane_view
from server.worker.process.pipeline import Pipeline
from tests.server.worker.small_engine import DoublingEngine, load_doubling

LOG = get_logger("test")


def picture(number: int, width: int = 160, height: int = 96) -> Picture:
    planes = synthetic_frame(number, SyntheticFormat(width=width, height=height))
    return Picture(
        format=PictureFormat(
            codec="test",
            pixel_format="yuv420p",
            width=width,
            height=height,
            fps=25,
            sample_aspect_ratio=(1, 1),
            tags=ColourTags(range=1, matrix=1, primaries=1, transfer=1),
        ),
        frame=frame_from_planes(planes, width, height),
        planes=planes,
        pts=number * 3600,
        duration=3600,
        arrival_ns=now_ns(),
        demuxed_ns=now_ns(),
        decoded_ns=now_ns(),
    )


def run(produce, consume, *, load=load_doubling, lanes=2, on_drop=None) -> None:
    pipeline = Pipeline(produce=produce, load=load, lanes=lanes, consume=consume, on_drop=on_drop, log=LOG)
    pipeline.start()
    pipeline.join(timeout_s=30)
    assert not pipeline.running


def test_what_a_demuxer_held_back_is_told_but_no_fault_of_the_network():
    sent, heard = [], []
    publisher = VideoPublisher(
        encoder="libx264", preset="ultrafast", bitrate_bps=0, keyframe_interval_s=10.0, send=sent.append,
        on_frame=lambda level, latency_s, interval_s: heard.append(latency_s),
        audio_format=lambda: None, log=LOG,
    )  # fmt: skip

    def produce(put):
        put(replace(picture(0), arrival_ns=now_ns() - 60_000_000_000))

    run(produce, publisher.publish)
    publisher.close()
    [packet] = [message for message in sent if isinstance(message, VideoPacket)]
    assert packet.trace.demux == pytest.approx(60, abs=1)
    assert packet.trace.decode < 10
    assert heard[0] < 30


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_offline_nothing_is_dropped_and_the_order_stays(lanes):
    out = []

    def produce(put):
        for number in range(40):
            put(picture(number))

    run(produce, lambda u: out.append(read_frame_number(plane_view(u.frame, 0), 2)), lanes=lanes)
    assert out == list(range(40))


def test_live_a_slow_engine_drops_the_oldest_and_latency_stays_bounded():
    engine_s, lanes = 0.02, 2
    out, drops = [], Counter()

    def produce(put):
        for number in range(150):
            put(picture(number))
            time.sleep(engine_s / 5)

    def load(width, height, colour):
        return DoublingEngine(width, height, seconds_per_frame=engine_s)

    def consume(upscaled):
        age_s = (now_ns() - upscaled.picture.arrival_ns) / 1e9
        out.append((read_frame_number(plane_view(upscaled.frame, 0), 2), age_s))

    run(
        produce,
        consume,
        load=load,
        lanes=lanes,
        on_drop=lambda stage, reason: drops.update([(stage, reason)]),
    )
    numbers = [number for number, _ in out]
    assert numbers == sorted(numbers)
    assert len(numbers) + sum(drops.values()) == 150, "every picture is shown or counted"
    assert drops["upscale", "overload"] > 80
    assert numbers[-1] == 149, "the newest is not the one dropped"
    ages = sorted(age for _, age in out)
    # Three in the mailbox and two in lanes, each a turn of the engine; then room for a busy machine.
    assert ages[len(ages) // 2] < 10 * engine_s


def test_live_a_slow_encoder_drops_before_it_too():
    drops, out = Counter(), []

    def produce(put):
        for number in range(40):
            put(picture(number))
            time.sleep(0.002)

    def consume(upscaled):
        time.sleep(0.02)
        out.append(upscaled)

    run(produce, consume, on_drop=lambda stage, reason: drops.update([(stage, reason)]))
    assert drops["encode", "overload"] > 5
    assert len(out) + sum(drops.values()) == 40


def test_pictures_that_come_while_the_engine_loads_do_not_pile_up():
    drops, out = Counter(), []
    loaded = threading.Event()

    def load(width, height, colour):
        assert loaded.wait(10)
        return DoublingEngine(width, height)

    def produce(put):
        for number in range(20):
            put(picture(number))
        loaded.set()

    run(produce, out.append, load=load, on_drop=lambda stage, reason: drops.update([(stage, reason)]))
    assert set(drops) == {("upscale", "engine_loading")}
    assert len(out) + sum(drops.values()) == 20
    assert len(out) <= 4, "one in the hand of the ring, three in the mailbox"


def test_a_change_of_size_gets_another_engine_and_loses_nothing():
    loads, out = [], []

    def load(width, height, colour):
        loads.append((width, height))
        return DoublingEngine(width, height, seconds_per_frame=0.001)

    def produce(put):
        for number in range(30):
            put(picture(number, *((160, 96) if number // 10 != 1 else (320, 180))))

    run(produce, out.append, load=load, lanes=3)
    assert loads == [(160, 96), (320, 180), (160, 96)]
    assert [u.frame.width for u in out] == [320] * 10 + [640] * 10 + [320] * 10
    assert [read_frame_number(plane_view(u.frame, 0), 2) for u in out] == list(range(30))


@pytest.mark.parametrize("where", ["source", "load", "lane", "consume"])
def test_a_failure_anywhere_ends_all_and_is_raised_to_the_owner(where):
    def fail(kind: str) -> None:
        if kind == where:
            raise EngineError(f"broken {kind}")

    class Broken(DoublingEngine):
        def lane(self):
            lane = super().lane()
            wait = lane.wait

            def broken_wait():
                fail("lane")
                return wait()

            lane.wait = broken_wait
            return lane

    def load(width, height, colour):
        fail("load")
        return Broken(width, height)

    ended = threading.Event()

    def produce(put):
        try:
            fail("source")
            while True:
                put(picture(0))
        except Closed:
            ended.set()
            raise

    with pytest.raises(EngineError, match=f"broken {where}"):
        run(produce, lambda _: fail("consume"), load=load)
    assert where == "source" or ended.wait(5)


def test_a_working_pipeline_is_not_silent_and_a_hanging_one_is():
    release = threading.Event()

    def produce(put):
        for number in range(3):
            put(picture(number))
        release.wait(20)

    def consume(_):
        release.wait(20)

    pipeline = Pipeline(
        produce=produce, load=load_doubling, lanes=2, consume=consume, on_drop=lambda *_: None, log=LOG
    )
    pipeline.start()
    deadline = time.monotonic() + 10
    while standing_still(pipeline, for_s=1.0) != {"encode"}:
        assert time.monotonic() < deadline
    release.set()
    pipeline.join(timeout_s=10)


def test_silence_of_an_idle_pipeline_is_short():
    stop = threading.Event()
    pipeline = Pipeline(
        produce=lambda put: (put(picture(0)), stop.wait(20), None)[2],
        load=load_doubling,
        lanes=2,
        consume=lambda _: None,
        on_drop=lambda *_: None,
        log=LOG,
    )
    pipeline.start()
    assert standing_still(pipeline, for_s=1.6) == set()
    stop.set()
    pipeline.join(timeout_s=10)


def standing_still(pipeline: Pipeline, for_s: float) -> set[str]:
    """The threads that make no step within that time."""
    before = pipeline.steps()
    time.sleep(for_s)
    return {name for name, steps in pipeline.steps().items() if steps == before.get(name)}
