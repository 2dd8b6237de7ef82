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


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU. `uuid` names it in CUDA_VISIBLE_DEVICES, whatever order CUDA counts in."""

    index: int
    uuid: str
    name: str
    memory_bytes: int  # 0 where it shares the machine's
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory_bytes / 2**30:.0f} GiB, " if self.memory_bytes else ""
        return f"{self.name}, {memory}compute capability {self.compute_capability}, driver {self.driver}"


@cache
def nvidia_gpus() -> tuple[Gpu, ...]:
    """Those that this process may use, as nvidia-smi reports them and CUDA_VISIBLE_DEVICES allows."""
    if shutil.which("nvidia-smi") is None:
        return ()
    fields = "index,uuid,name,memory.total,compute_cap,driver_version"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        gpus = [_gpu(line) for line in listing.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(gpus if allowed is None else _visible(gpus, allowed))


def _gpu(line: str) -> Gpu:
    index, uuid, name, memory_mib, compute_capability, driver = (field.strip() for field in line.split(","))
    return Gpu(
        index=int(index),
        uuid=uuid,
        name=name,
        memory_bytes=int(memory_mib) << 20 if memory_mib.isdecimal() else 0,
        compute_capability=compute_capability,
        driver=driver,
    )


def _visible(gpus: list[Gpu], allowed: str) -> list[Gpu]:
    """GPUs that CUDA_VISIBLE_DEVICES names, read as CUDA does: numbers or beginnings of UUIDs, up to the
    first that is neither."""
    visible: list[Gpu] = []
    for entry in (part.strip() for part in allowed.split(",")):
        found = [gpu for gpu in gpus if entry and (entry == str(gpu.index) or gpu.uuid.startswith(entry))]
        if len(found) != 1:
            break
        visible += found
    return visible
