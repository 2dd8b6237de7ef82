"""What the threads of a process are at, as Linux says it."""

import contextlib
from pathlib import Path


def at_work(pid: int, *, besides: int | None = None) -> bool:
    """Whether a thread computes, waits for a core or for a disk; `besides` is one that doesn't count."""
    return bool(_states(pid, besides) & {"R", "D"})


def stopped(pid: int) -> bool:
    """By a signal, as SIGSTOP."""
    return "T" in _states(pid)


def _states(pid: int, besides: int | None = None) -> set[str]:
    """As proc(5) names them; none once the process has gone."""
    states = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if thread.parent.name != str(besides):
                states.add(thread.read_text().rpartition(") ")[2][:1])
    return states
