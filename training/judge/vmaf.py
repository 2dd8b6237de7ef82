"""VMAF, by an ffmpeg that was built with libvmaf. Where there is none, nothing else stands in for it."""

import importlib
import re
import shutil
import subprocess
from contextlib import suppress
from fractions import Fraction
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np

from engine.frame import Plane

UNAVAILABLE = "VMAF is not measured: it needs an ffmpeg with libvmaf (pip install imageio-ffmpeg)"


@cache
def vmaf_ffmpeg() -> str | None:
    """The path of an ffmpeg that has the libvmaf filter: imageio-ffmpeg's, else the system's."""
    candidates = [shutil.which("ffmpeg")]
    with suppress(ModuleNotFoundError, RuntimeError):  # not installed; installed without a binary
        candidates.insert(0, importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    for path in filter(None, candidates):
        filters = subprocess.run([path, "-hide_banner", "-filters"], capture_output=True, text=True)
        if " libvmaf " in filters.stdout:
            return path
    return None


class Vmaf:
    """One comparison, frame by frame, with the default model (vmaf_v0.6.1). It looks at luma only."""

    def __init__(self, ffmpeg: str, width: int, height: int, fps: Fraction) -> None:
        # Both pictures travel as one, above each other: two pipes could block each other.
        graph = (
            f"[0:v]split[a][b];[a]crop={width}:{height}:0:0[sr];[b]crop={width}:{height}:0:{height}[hr];"
            "[sr][hr]libvmaf=n_threads=1"
        )
        command = [ffmpeg, "-hide_banner", "-nostats", "-f", "rawvideo", "-pix_fmt", "yuv420p"]
        command += ["-s", f"{width}x{2 * height}", "-r", str(fps), "-i", "pipe:0", "-lavfi", graph]
        self._process = subprocess.Popen(
            [*command, "-f", "null", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._grey = np.full(width * height, 128, np.uint8).tobytes()  # chroma of both

    def add(self, sr: Plane, hr: Plane) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(sr.tobytes() + hr.tobytes() + self._grey)
        except BrokenPipeError:
            self.score()  # which says what ffmpeg said

    def score(self) -> float:
        """VMAF of all frames, 0-100; nothing can be added afterwards. Raises ValueError where ffmpeg gave
        none."""
        _, log = self._process.communicate()
        found = re.search(rb"VMAF score: ([\d.]+)", log)
        if not found:
            raise ValueError(f"ffmpeg gave no VMAF score: {log.decode(errors='replace')[-300:].strip()}")
        return float(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with suppress(BrokenPipeError), self._process:  # waits, and closes the pipes
            pass
