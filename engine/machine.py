"""What this machine can run: read from the system, without loading a heavy library."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Flags of /proc/cpuinfo that decide how fast which precision runs.
_FEATURES = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 BF16": "avx512_bf16",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX VNNI": "avx_vnni",
    "AMX BF16": "amx_bf16",
    "AMX INT8": "amx_int8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    model: str
    cores: int  # that this process may use
    features: tuple[str, ...]

    @property
    def fast_bf16(self) -> bool:
        return "AVX-512 BF16" in self.features or "AMX BF16" in self.features

    @property
    def fast_int8(self) -> bool:
        return any("VNNI" in f or "INT8" in f for f in self.features)


@cache
def cpu() -> Cpu:
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    flags = set(fields.get("flags", "").split())
    return Cpu(
        model=fields.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features=tuple(name for name, flag in _FEATURES.items() if flag in flags),
    )


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def nvidia_gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi reports them."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.splitlines() if line.strip()]
