"""How much CPU time this machine, or the container we run in, has left."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_USED = Path("/sys/fs/cgroup/cpu.stat")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class IdleCores:
    """Cores that were left for us since the last call: of those that we may run on, within a container's
    quota. What runs niced gives way."""

    def __init__(self) -> None:
        self._niced = os.getpriority(os.PRIO_PROCESS, 0) > 0  # then it gives way no more than we do
        self._cpus = os.sched_getaffinity(0)
        self._quota = quota_cores()
        self._before = self._now()

    def __call__(self) -> float:
        before, self._before = self._before, self._now()
        passed_s, idle_s, used_s = (now - then for now, then in zip(self._before, before, strict=True))
        if passed_s <= 0:
            return 0.0
        idle = min(idle_s / passed_s, float(len(self._cpus)))
        return idle if self._quota is None else max(0.0, min(idle, self._quota - used_s / passed_s))

    def _now(self) -> tuple[float, float, float]:
        used_s = 0.0 if self._quota is None else _container_cpu_s()
        return time.monotonic(), _idle_s(self._cpus, count_niced=not self._niced), used_s


def quota_cores() -> float | None:
    """What a container may use (cgroup v2); None where nothing limits it."""
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _idle_s(cpus: set[int], *, count_niced: bool) -> float:
    idle = 0
    for line in _STAT.read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            idle += int(ticks[3]) + int(ticks[4])  # idle, and waiting for a disk
            idle += int(ticks[1]) if count_niced else 0
    return idle * _TICK_S


def _container_cpu_s() -> float:
    fields = dict(line.split() for line in _USED.read_text().splitlines())
    return int(fields["usage_usec"]) / 1e6
