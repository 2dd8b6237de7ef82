"""A worker is hurt, and its viewers see a moving picture again over the same connection."""

import os
import signal

import pytest

from tests.faults.conftest import MEMORY_BYTES, Scene
from tests.peers.service import until

HURTS = {
    "killed": (lambda scene: scene.signal(signal.SIGKILL), "ended by SIGKILL; a new one"),
    "stopped": (
        lambda scene: scene.signal(signal.SIGSTOP),
        "gave no sign of life for 0.3 s; a new one",
    ),
    "crashed": (lambda scene: scene.flaw("crash"), "ended by SIGSEGV; a new one"),
    "hung": (
        lambda scene: scene.flaw("hang"),
        "the worker's encode thread hangs: no step for 5 s or more; a new",
    ),
    "out of memory": (
        lambda scene: scene.flaw("memory"),
        f"needed more memory than limits.worker_memory_bytes={MEMORY_BYTES}; a new one",
    ),
}


@pytest.mark.parametrize("how", HURTS)
def test_the_same_viewers_see_a_moving_picture_again(scene: Scene, how: str) -> None:
    hurt, reason = HURTS[how]
    worker, restarts, breaks, said = scene.worker, scene.restarts(), scene.breaks(), len(scene.service.log())
    others_before = scene.other.latest()

    hurt(scene)

    until(lambda: scene.restarts() == restarts + 1, "the worker is replaced")
    back = scene.hurt.latest() + 50
    until(lambda: scene.hurt.latest() > back, "the viewer sees it move")
    log = scene.service.log()[said:]
    assert reason in log
    assert "standby takes over" in log
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)

    last = scene.segments()[-1]
    until(lambda: scene.segments()[-1] != last, "HLS goes on")
    assert scene.breaks() == breaks + 1

    others = scene.other.latest()
    scene.other_lost_none(others_before, others)


def test_a_stream_that_kills_its_workers_is_stopped_until_it_is_released(scene: Scene) -> None:
    others_before = scene.other.latest()
    for deaths in range(3):
        restarts = scene.restarts()
        scene.signal(signal.SIGKILL)
        if deaths < 2:
            until(lambda n=restarts: scene.restarts() == n + 1, "the worker is replaced")
            scene.service.wait_for("hurt", "running")
    stopped = scene.service.wait_for("hurt", "quarantined")
    assert stopped["reason"] == "it ended 3 workers within 60 s, the last so: the worker was ended by SIGKILL"
    assert (
        'livesr_stream_state{state="quarantined",stream="hurt"} 1.0'
        in scene.service.http.get("/metrics").text
    )
    assert f"state=quarantined reason='{stopped['reason']}'" in scene.service.log()
    seen = scene.other.latest()
    until(lambda: scene.other.latest() > seen + 20, "the other stream runs on")
    assert scene.service.show("hurt")["state"] == "quarantined"

    assert scene.service.http.post("/api/streams/hurt/release").json()["state"] == "starting"
    scene.service.wait_for("hurt", "running")
    back = scene.hurt.latest() + 50
    until(lambda: scene.hurt.latest() > back, "the viewer who stayed sees it move")
    others = scene.other.latest()
    scene.other_lost_none(others_before, others)


def test_a_stream_that_needs_more_memory_than_it_may_take_is_stopped_with_the_reason(scene: Scene) -> None:
    others_before = scene.other.latest()
    with scene.service.stream("large", "synthetic:?size=1920x1080&fps=5"):
        reason = scene.service.wait_for("large", "quarantined")["reason"]
        assert f"needed more memory than limits.worker_memory_bytes={MEMORY_BYTES}" in reason
    others = scene.other.latest()
    scene.other_lost_none(others_before, others)


def test_a_standby_that_dies_is_replaced(scene: Scene) -> None:
    """And one that is stopped isn't given a job."""
    streams = {scene.service.show(name)["worker"]["pid"] for name in ("hurt", "other")}
    (standby,) = set(scene.service.workers()) - streams
    os.kill(standby, signal.SIGKILL)
    until(lambda: set(scene.service.workers()) - streams - {standby}, "another one waits")
    (standby,) = set(scene.service.workers()) - streams
    os.kill(standby, signal.SIGSTOP)
    restarts = scene.restarts()
    scene.signal(signal.SIGKILL)
    until(lambda: scene.restarts() == restarts + 1, "the worker is replaced")
    back = scene.hurt.latest() + 50
    until(lambda: scene.hurt.latest() > back, "the viewer sees it move")
    until(lambda: standby not in scene.service.workers(), "who was stopped has gone")
