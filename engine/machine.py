"""What this machine can run: read from the system, without loading a heavy library."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

MOST_THREADS = 256  # of one engine

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
    """One NVIDIA GPU, or a part of one that MIG has made. `uuid` names it in CUDA_VISIBLE_DEVICES, whatever
    order CUDA counts in."""

    index: int  # as nvidia-smi counts GPUs
    uuid: str
    name: str
    memory_bytes: int  # 0 where it shares the machine's, or nobody says
    compute_capability: str
    driver: str
    part: int | None = None  # of the GPU, as nvidia-smi counts MIG devices

    @property
    def number(self) -> str:
        """ "0", or of a part "0:1"."""
        return str(self.index) if self.part is None else f"{self.index}:{self.part}"

    def __str__(self) -> str:
        memory = f"{self.memory_bytes / 2**30:.0f} GiB, " if self.memory_bytes else ""
        return f"{self.name}, {memory}compute capability {self.compute_capability}, driver {self.driver}"


@cache
def nvidia_gpus() -> tuple[Gpu, ...]:
    """Those that this process may use, as nvidia-smi reports them and CUDA_VISIBLE_DEVICES allows. Of one
    that MIG has divided its parts: CUDA can't use it as a whole, and one process no more than one part."""
    if shutil.which("nvidia-smi") is None:
        return ()
    fields = "index,uuid,name,memory.total,compute_cap,driver_version"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        gpus = [_gpu(line) for line in _printed(query).splitlines() if line.strip()]
        gpus = list(_divided(gpus, _printed(["nvidia-smi", "--list-gpus"])))
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(gpus if allowed is None else _visible(gpus, allowed))


def _printed(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


# MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
_PART = re.compile(r"MIG (\S*?(\d+)gb\S*) +Device +(\d+): +\(UUID: (MIG-\S+)\)")


def _divided(gpus: list[Gpu], listing: str) -> Iterator[Gpu]:
    """Parts in the place of GPUs that have some: each follows its GPU in the listing."""
    parts: dict[str, list[re.Match[str]]] = {}
    whole = ""
    for line in listing.splitlines():
        if found := re.search(r"\(UUID: (GPU-\S+)\)", line):
            whole = found[1]
        elif part := _PART.search(line):
            parts.setdefault(whole, []).append(part)
    for gpu in gpus:
        if gpu.uuid not in parts:
            yield gpu
        for profile, gigabytes, number, uuid in (part.groups() for part in parts.get(gpu.uuid, ())):
            yield replace(
                gpu,
                uuid=uuid,
                name=f"{gpu.name} MIG {profile}",
                memory_bytes=int(gigabytes) * 10**9,
                part=int(number),
            )


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
    first that is neither. The number of a divided GPU is its first part."""
    visible: list[Gpu] = []
    for entry in (part.strip() for part in allowed.split(",")):
        numbered = [gpu for gpu in gpus if entry == str(gpu.index)]
        found = numbered[:1] or [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if len(found) != 1:
            break
        visible += found
    return visible
