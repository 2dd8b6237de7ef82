"""Streams in a process each and in one, measured."""

import pytest

from server.offline.bench_sharing import StreamFailed, bench_sharing, describe
from server.settings import DEFAULT_MODEL


def test_sharing_a_process_saves_memory_and_all_streams_run() -> None:
    apart, together = bench_sharing(DEFAULT_MODEL, width=160, height=96, streams=2, seconds=2.0, rounds=1)
    assert (apart.processes, together.processes) == (2, 1)
    assert together.memory_mb < apart.memory_mb
    for result in (apart, together):
        assert result.frames_per_s > 10
        assert 0 < result.p50_ms <= result.p95_ms
        assert result.cpu_ms > 0
    assert "p95 ms" in describe([apart, together])


@pytest.mark.parametrize(
    ("width", "error", "words"),
    [(10, ValueError, "^synthetic width=10 must be even"), (3840, StreamFailed, "above the limit")],
)
def test_a_stream_that_cannot_be_measured_says_why(width: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bench_sharing(DEFAULT_MODEL, width=width, height=96, streams=2, seconds=1.0, rounds=1)
