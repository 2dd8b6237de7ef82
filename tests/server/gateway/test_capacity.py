"""What the machine carries: refused in time, and told to autoscalers."""

from contextlib import closing

import pytest

from engine.measure.costs import load_costs, store_costs
from server.gateway.placement.capacity import Capacity
from server.gateway.streams.kept import KeptStreams
from server.wire.messages import BICUBIC, JobImpossible
from tests.server.gateway.scripted_gateway import gateway

STREAM = {"source": "synthetic:"}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIVESR_ARTIFACTS", str(tmp_path))
    return tmp_path / "costs.json"


@pytest.fixture
def capacity(monkeypatch: pytest.MonkeyPatch) -> Capacity:
    """Two cores; a stream of 640×360 at 25 frames a second takes half of one by bicubic."""
    store_costs({BICUBIC: 0.5 / 5.76, "awsrn-live-x2": 2.0 / 5.76})
    monkeypatch.setattr("server.gateway.placement.capacity.quota_cores", lambda: 2.0)
    made = Capacity(0.9)
    made.cores, made.usable_cores = 2.0, 1.8
    return made


async def test_a_stream_that_would_not_fit_is_refused_with_the_numbers(capacity: Capacity):
    async with gateway(capacity=capacity, streams=()) as served:
        for number in range(3):
            assert (
                await served.http.post("/api/streams", json=STREAM | {"id": f"fits-{number}"})
            ).status_code == 201
        # The scripted ones have opened 80×60 since; these are still to open.
        served.placement.script.live = False
        answers = [
            await served.http.post("/api/streams", json=STREAM | {"id": f"more-{n}"}) for n in range(5)
        ]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert refused[-1].headers["Retry-After"]
        detail = refused[-1].json()["detail"]
        assert "of 1.80 cores (of 2)" in detail
        assert "one more 0.50" in detail
        assert "limits.assumed_pixels_per_s=5.76e+06" in detail


async def test_a_ladder_without_bicubic_takes_more(capacity: Capacity):
    async with gateway(capacity=capacity, streams=()) as served:
        answer = await served.http.post("/api/streams", json=STREAM | {"id": "pinned", "ladder": []})
        assert answer.status_code == 503
        assert "one more 2.00" in answer.json()["detail"]


async def test_a_stream_that_has_failed_stays_where_its_change_finds_no_room(capacity: Capacity, tmp_path):
    path = tmp_path / "streams.db"
    given = STREAM | {"id": "mine"}
    async with gateway(streams=(), capacity=capacity, kept=KeptStreams(path)) as served:
        await served.http.post("/api/streams", json=given)
        served.worker.hang()
        served.worker.say(JobImpossible(reason="no video in it"))
        await served.in_state("failed", "mine")
        for ladder, status in (([], 503), (["bicubic"], 200)):
            answer = await served.http.patch("/api/streams/mine", json={"ladder": ladder})
            assert answer.status_code == status
            assert ((await served.stream("mine"))["state"] == "failed") == (status == 503)
    with closing(KeptStreams(path)) as kept:
        assert kept.at_start[0].given == given | {"ladder": ["bicubic"]}


async def test_what_is_left_is_a_metric(capacity: Capacity):
    async with gateway(capacity=capacity) as served:
        await served.in_state("running")
        metrics = await served.metrics()
        assert metrics["livesr_capacity_cores"] == pytest.approx(1.8)
        reserved = metrics["livesr_capacity_reserved_cores"]
        assert 0 < reserved < 0.1  # of a small picture
        left = metrics['livesr_capacity_left_pixels_per_second{model="bicubic"}']
        assert left == pytest.approx((1.8 - reserved) / (0.5 / 5.76) * 1e6)
        assert metrics["livesr_free_streams"] == 3, "half a core each by bicubic"


async def test_nothing_is_refused_where_nothing_was_measured():
    capacity = Capacity(0.9)
    assert capacity.costs == {}
    async with gateway(streams=()) as served:
        for number in range(8):
            answer = await served.http.post("/api/streams", json=STREAM | {"id": f"s-{number}"})
            assert answer.status_code == 201


async def test_costs_are_measured_once_and_kept(kept):
    capacity = Capacity(0.9)
    await capacity.learn([])
    assert 0 < capacity.costs[BICUBIC] < 10
    assert load_costs() == capacity.costs
    before = kept.stat().st_mtime_ns
    await Capacity(0.9).learn([])
    assert kept.stat().st_mtime_ns == before


def test_what_is_kept_for_another_machine_or_damaged_is_not_used(kept, caplog):
    kept.write_text('{"livesr 0.0 on nothing, 1 cores": {"bicubic": 1.0}}')
    assert load_costs() == {}
    for damaged in ("{", "[]", '{"a": 1}', '{"a": {"b": "x"}}'):
        kept.write_text(damaged)
        assert load_costs() == {}
    assert "is not used" in caplog.text
    store_costs({BICUBIC: 1.0})
    assert load_costs() == {BICUBIC: 1.0}
