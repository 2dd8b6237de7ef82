"""Every drop is told to the gateway at once; the log hears of them in sums."""

from server.wire.logs import stream_log
from server.wire.messages import Dropped
from server.worker.drops import Drops


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
    assert caplog.records[0].getMessage() == "dropped since the last such line: 2 before upscale (overload)"
    assert "40 before upscale" in caplog.records[1].getMessage()


def test_nothing_dropped_says_nothing(caplog):
    assert Drops(stream_log("cam")).take() == []
    assert not caplog.records
