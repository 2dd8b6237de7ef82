"""What a worker makes for whom: renditions that are watched, levels of the ladder."""

import os
import socket
from itertools import pairwise

import pytest

from server.settings import DEFAULT_MODEL
from server.wire.messages import (
    BICUBIC,
    AudioPacket,
    Dropped,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    Opened,
    RequestKeyframe,
    Stepped,
    StepUp,
    Watch,
)
from tests.server.worker.gated_worker import GATE
from tests.server.worker.worker_process import numbers


def test_the_sources_own_picture_comes_only_while_it_is_wanted(start):
    worker = start().until(lambda w: len(w.video()) >= 5)
    assert not worker.video("source")
    worker.send(Watch(renditions=("upscaled", "source")))
    worker.until(lambda w: len(w.video("source")) >= 10)
    source = worker.video("source")
    assert source[0].keyframe
    upscaled = {packet.pts: packet for packet in worker.video()}
    matching = [upscaled[packet.pts] for packet in source]
    assert {packet.arrival_ns for packet in source} == {packet.arrival_ns for packet in matching}
    assert None not in numbers(source, 1)
    worker.send(Watch(renditions=("upscaled",)))
    worker.until(lambda w: isinstance(w.messages[-1], Heartbeat) and len(w.video()) > 60)
    count = len(worker.video("source"))
    worker.until(lambda w: len(w.video()) >= 80)
    assert len(worker.video("source")) == count


def test_every_rendition_has_the_same_pictures_times_and_key_frames(start):
    """They come and go while others are watched, and key frames are asked for meanwhile."""
    names = ("upscaled", "96p", "source")
    worker = start(renditions=("source", "400p", "upscaled", "96p"), watched=("upscaled", "96p"))
    worker.until(lambda w: len(w.video("96p")) >= 12)
    worker.send(Watch(renditions=names))
    worker.until(lambda w: len(w.video("source")) >= 8)
    worker.send(RequestKeyframe())
    worker.until(lambda w: len(w.video("source")) >= 60 and len(w.video("96p")) >= 80)
    upscaled = {packet.pts: packet for packet in worker.video()}
    shown = dict(zip(upscaled, numbers([*upscaled.values()], 2), strict=True))
    for name in names[1:]:
        packets = worker.video(name)
        assert packets[0].keyframe
        same = [upscaled[packet.pts] for packet in packets]
        assert [p.keyframe for p in packets] == [p.keyframe for p in same]
        assert [p.duration for p in packets] == [p.duration for p in same]
        assert numbers(packets, 1) == [shown[p.pts] for p in packets]
        assert None not in numbers(packets, 1)
    keyframes = [pts for pts, packet in upscaled.items() if packet.keyframe]
    assert worker.video("source")[0].pts in keyframes[1:], "what begins later begins with all the others"
    assert len([pts for pts in keyframes if pts > worker.video("source")[7].pts]) >= 2
    sizes = {form.name: (form.width, form.height) for form in worker.of(Opened)[-1].renditions}
    assert sizes == {"upscaled": (320, 192), "96p": (160, 96), "source": (160, 96)}
    left_out = "renditions=['400p'] reason='the upscaled picture has only 192 lines'"
    assert left_out in worker.ended()[1]


def test_unwatched_pictures_are_not_upscaled(start):
    worker = start(watched=()).until(lambda w: any(load.state == "ready" for load in w.of(EngineLoad)))
    worker.until(lambda w: len(w.of(Heartbeat)) >= 4)
    prepared = worker.video()
    assert len(prepared) <= 2, "one to load the engine by, and one by the engine"
    assert worker.of(Opened)[-1].engine.model == DEFAULT_MODEL
    assert not worker.of(AudioPacket)

    worker.send(Watch(renditions=("upscaled",)))
    worker.until(lambda w: len(w.video()) >= len(prepared) + 10 and w.of(AudioPacket))
    watched = worker.video()[len(prepared) :]
    assert watched[0].keyframe
    assert None not in numbers(watched, 2)

    worker.send(Watch(renditions=()))
    count = len(worker.of(Heartbeat))
    worker.until(lambda w: len(w.of(Heartbeat)) >= count + 2)
    frames = len(worker.video())
    worker.until(lambda w: len(w.of(Heartbeat)) >= count + 5)
    assert len(worker.video()) == frames


def test_pictures_that_have_waited_for_their_engine_are_no_reason_to_step(start, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "gate")
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))
    worker = start(
        "tests.server.worker.gated_worker",
        source="synthetic:?size=160x96&fps=5",
        ladder=(BICUBIC,),
        latency_budget_s=1.0,
    )
    worker.until(lambda w: any(beat.pictures >= 20 for beat in w.of(Heartbeat)))  # for four seconds
    assert not worker.video()
    (tmp_path / "gate").write_text("load\n")
    worker.until(lambda w: len(w.video()) >= 5)
    assert not worker.of(Stepped)


def test_a_step_on_the_ladder_is_seen_by_nobody_but_in_the_picture(start):
    """No frame is late by a tenth of a millisecond less: down it goes, and up again when it may."""
    worker = start(ladder=(BICUBIC,), latency_budget_s=1e-4).until(lambda w: w.of(Stepped))
    [down] = worker.of(Stepped)
    assert down.level == 1
    assert "above the budget of 0 ms" in down.reason
    worker.until(lambda w: w.of(Opened)[-1].engine.model == BICUBIC)
    beats = 0
    while len(worker.of(Stepped)) < 2:  # it takes no step up within ten seconds of the last
        worker.send(StepUp(level=0))
        beats += 1
        worker.until(lambda w, beats=beats: len(w.of(Heartbeat)) >= beats)
    assert worker.of(Stepped)[1].level == 0
    worker.until(lambda w: w.of(Opened)[-1].engine.model == DEFAULT_MODEL)
    worker.until(lambda w: len(w.of(Heartbeat)) > beats + 2)
    assert any(worker.of(Heartbeat)[-1].frame_cpu_s)
    packets = worker.video()
    seen = [n for n in numbers(packets, 2) if n is not None]
    assert len(seen) == len(packets), "each frame is whole"
    if not worker.of(Dropped):  # of a machine that is too busy for anything
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    keyframes = [packet.pts for packet in packets if packet.keyframe]
    assert all(later - earlier >= 1.9 * 90_000 for earlier, later in pairwise(keyframes[1:]))


def test_a_ladder_has_one_scale(start):
    worker = start(ladder=("awsrn-live-large-x4",)).until(lambda w: w.of(JobImpossible))
    assert "'awsrn-live-large-x4' has scale 4, but model" in worker.of(JobImpossible)[0].reason


def test_the_source_is_open_only_while_it_is_watched(start):
    """A publisher that nobody wants to see is not called; afterwards it is left alone again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]
        worker = start(
            watched=(), source_when="watched", source=f"http://127.0.0.1:{port}/x.ts", source_timeout_s=60.0
        )
        worker.until(lambda w: len(w.of(Heartbeat)) >= 3)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        server.settimeout(30)
        worker.send(Watch(renditions=("upscaled",)))
        connection, _ = server.accept()
        connection.close()
