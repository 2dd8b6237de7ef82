"""Bound on what one worker may take: a source that makes it run away ends it, and not the machine."""

import resource

from engine.machine import nvidia_gpus


def limit_memory(most_bytes: int) -> None:
    """Bounds the process's private writable memory, 0 for no bound; what goes beyond fails as MemoryError.

    RLIMIT_DATA and not RLIMIT_AS: models mapped from files and reserves of allocators are address space only.
    Nothing is bounded beside a GPU, since CUDA maps the memory of every device.
    """
    if most_bytes and not nvidia_gpus():
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def held_bytes() -> int:
    """Private writable memory of this process, which is what is bounded."""
    with open("/proc/self/status") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmData:"))
    return int(kilobytes) * 1024
