"""The last frames of a stream in figures: quantiles of each stage, frames per second."""

from collections import deque
from collections.abc import Iterable, Mapping

from server.gateway.figures.views import Quantiles
from server.wire.messages import Stage

FRAMES = 512
RATE_WINDOW_S = 5.0
_SLOW_FRAMES = 3


class RecentFrames:
    """Durations of the last 512 frames and the times of those of the last seconds."""

    def __init__(self) -> None:
        self._stages_s: dict[Stage, deque[float]] = {}
        self._latencies_s: deque[float] = deque(maxlen=FRAMES)
        self._hls_latencies_s: deque[float] = deque(maxlen=FRAMES)
        self._times_s: deque[float] = deque(maxlen=FRAMES)

    def add(self, now_s: float, stages_s: Mapping[Stage, float], latency_s: float) -> None:
        self._times_s.append(now_s)
        self._latencies_s.append(latency_s)
        for stage, duration_s in stages_s.items():
            self._stages_s.setdefault(stage, deque(maxlen=FRAMES)).append(duration_s)

    def add_listed(self, latencies_s: Iterable[float]) -> None:
        self._hls_latencies_s.extend(latencies_s)

    def fps(self, now_s: float) -> float:
        """Frames a second over the last five, or over the last frames of a slower source; 0 where none
        came."""
        last_s = self._times_s[-1] - self._times_s[-2] if len(self._times_s) > 1 else 0.0
        window_s = max(RATE_WINDOW_S, _SLOW_FRAMES * last_s)
        times = [t for t in self._times_s if t > now_s - window_s]
        if len(times) < 2:
            return 0.0
        # The time since the last frame counts once it is longer than a frame: a stalled stream's rate falls.
        frame_s = (times[-1] - times[0]) / (len(times) - 1)
        overdue_s = max(0.0, now_s - times[-1] - 2 * frame_s)
        return (len(times) - 1) / (times[-1] - times[0] + overdue_s)

    def latency(self) -> Quantiles | None:
        return _quantiles(self._latencies_s)

    def hls_latency(self) -> Quantiles | None:
        return _quantiles(self._hls_latencies_s)

    def stages(self) -> dict[Stage, Quantiles]:
        found = {stage: _quantiles(durations) for stage, durations in self._stages_s.items()}
        return {stage: quantiles for stage, quantiles in found.items() if quantiles is not None}


def _quantiles(durations_s: deque[float]) -> Quantiles | None:
    """Nearest-rank quantiles; None of nothing."""
    if not durations_s:
        return None
    ordered = sorted(durations_s)
    last = len(ordered) - 1

    def at(share: float) -> float:
        return round(ordered[min(last, int(share * len(ordered)))], 6)

    return Quantiles(p50=at(0.50), p95=at(0.95), p99=at(0.99))
