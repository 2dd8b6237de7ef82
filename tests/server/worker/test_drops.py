"""Every drop is told to the gateway at once; the log hears of them in sums."""

from server.wire.logs import stream_log
from server.wire.messages import Dropped
from server.worker.drops import Drops
from tests.logs import events


def test_all_are_counted_and_few_lines_logged(caplog):
    now_s = 0.0
    drops = Drops(stream_log("cam"), clock_s=lambda: now_s)
    told = []
    for tick in range(100):  # fifty seconds of overload
        now_s = tick / 2
        drops.add("upscale", "overload")
        drops.add("upscale", "overload")
        told += drops.take()
    assert told == [Dropped(stage="upscale", reason="overload", count=2)] * 100
    assert len(caplog.records) == 5
    first, second, *_ = events(caplog, "frames dropped")
    assert first == {
        "level": "warning",
        "stream": "cam",
        "count": 2,
        "by_stage_and_reason": {"upscale overload": 2},
    }
    assert second["count"] == 40


def test_nothing_dropped_says_nothing(caplog):
    assert Drops(stream_log("cam")).take() == []
    assert not caplog.records
