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


def test_sound_is_told_apart(caplog):
    drops = Drops(stream_log("cam"))
    drops.add("decode", "corrupt")
    for _ in range(36):
        drops.add("decode", "overlap", sound=True)
    assert drops.take() == [
        Dropped(stage="decode", reason="corrupt", count=1),
        Dropped(stage="decode", reason="overlap", count=36, sound=True),
    ]
    [frames], [sound] = events(caplog, "frames dropped"), events(caplog, "sound dropped")
    assert (frames["count"], frames["by_stage_and_reason"]) == (1, {"decode corrupt": 1})
    assert (sound["count"], sound["by_stage_and_reason"]) == (36, {"decode overlap": 36})


def test_nothing_dropped_says_nothing(caplog):
    assert Drops(stream_log("cam")).take() == []
    assert not caplog.records
