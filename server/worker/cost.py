"""What a stream and each of its frames cost, measured while it runs."""

import os
import resource
import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.frame import EngineSpec

_LEAST_FRAMES = 5
_NEW_SHARE = 0.3  # of the last measurement in the running mean


# As many multiply-adds take as long as decoding and encoding does, for each pixel of the source.
_MACS_BESIDE = 5_000
_PAGE_BYTES = resource.getpagesize()


def work_of(spec: EngineSpec) -> float:
    """What a frame of that engine takes of a CPU beside frames of others, in multiply-adds."""
    return spec.macs_per_frame + _MACS_BESIDE * spec.width * spec.height


@dataclass(slots=True, kw_only=True, eq=False)
class Share:
    """A stream's part of what its process has taken so far."""

    work: Callable[[], float]  # so far, as `work_of` counts it
    worked: float = 0.0
    cpu_s: float = 0.0


class Account:
    """CPU time and memory of this process, divided among its streams, so that their sum is what it takes: CPU
    time by their work since it was last divided, memory evenly. For any thread."""

    def __init__(self, cpu_s: Callable[[], float] | None = None) -> None:
        self._cpu_s = cpu_s or _process_cpu_s
        self._divided_s = 0.0
        self._shares: list[Share] = []
        self._lock = threading.Lock()

    def open(self, work: Callable[[], float]) -> Share:
        """For a stream that begins; `work` counts up from 0."""
        with self._lock:
            if self._shares:
                self._divide()
            share = Share(work=work)
            self._shares.append(share)
            return share

    def close(self, share: Share) -> None:
        with self._lock:
            self._divide()
            self._shares.remove(share)

    def report(self, share: Share) -> tuple[float, int]:
        """Its CPU time so far in seconds, and its part of the resident memory in bytes."""
        with self._lock:
            self._divide()
            return share.cpu_s, _rss_bytes() // len(self._shares)

    def _divide(self) -> None:
        cpu_s = self._cpu_s()
        taken_s, self._divided_s = cpu_s - self._divided_s, cpu_s
        done = []
        for share in self._shares:
            before, share.worked = share.worked, share.work()
            done.append(share.worked - before)
        if not sum(done):
            done = [1.0] * len(done)
        for share, part in zip(self._shares, done, strict=True):
            share.cpu_s += taken_s * part / sum(done)


def _process_cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


class FrameCost:
    """CPU time of all that a stream does for each frame, by the level of the ladder that upscaled it."""

    def __init__(self, levels: int) -> None:
        self._means_s = [0.0] * levels
        self._before: tuple[int, int, float] | None = None  # level, frames, CPU time

    def report(self, level: int, frames: int, cpu_s: float) -> tuple[float, ...]:
        """Seconds by level; 0 where it isn't known. `frames` and `cpu_s` count from the start, `level` is the
        present one."""
        before, self._before = self._before, (level, frames, cpu_s)
        if before is not None and before[0] == level and frames - before[1] >= _LEAST_FRAMES:
            frame_s = (cpu_s - before[2]) / (frames - before[1])
            mean_s = self._means_s[level] or frame_s
            self._means_s[level] = mean_s + _NEW_SHARE * (frame_s - mean_s)
        return tuple(self._means_s)
