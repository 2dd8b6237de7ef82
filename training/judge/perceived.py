"""VMAF, VMAF-NEG and XPSNR, by an ffmpeg that has them. Where there is none, nothing stands in for it.

VMAF-NEG gives nothing for contrast beyond the original's: what VMAF has above it was bought by sharpening.
XPSNR (Helmrich et al. 2020) is PSNR weighed by what an eye sees of each block.
"""

import importlib
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np

from engine.frame import Plane

UNAVAILABLE = "VMAF and XPSNR are not measured: they need an ffmpeg with both (pip install imageio-ffmpeg)"
_MODELS = r"version=vmaf_v0.6.1|version=vmaf_v0.6.1neg\:name=neg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceived:
    """Of all frames, of luma: VMAF and VMAF-NEG, 0-100, and XPSNR in dB, infinite where nothing differs.
    ffmpeg has no VMAF-NEG of pictures without any contrast."""

    vmaf: float
    vmaf_neg: float | None
    xpsnr_db: float


@cache
def perceptual_ffmpeg() -> str | None:
    """The path of an ffmpeg that has both filters: imageio-ffmpeg's, else the system's."""
    candidates = [shutil.which("ffmpeg")]
    with suppress(ModuleNotFoundError, RuntimeError):  # not installed; installed without a binary
        candidates.insert(0, importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    for path in filter(None, candidates):
        filters = subprocess.run([path, "-hide_banner", "-filters"], capture_output=True, text=True)
        if " libvmaf " in filters.stdout and " xpsnr " in filters.stdout:
            return path
    return None


class Perception:
    """One comparison, frame by frame."""

    def __init__(self, ffmpeg: str, width: int, height: int, fps: Fraction) -> None:
        # Both pictures travel as one, above each other: two pipes could block each other.
        graph = (
            f"[0:v]split[a][b];[a]crop={width}:{height}:0:0,split[sr1][sr2];"
            f"[b]crop={width}:{height}:0:{height},split[hr1][hr2];"
            f"[sr1][hr1]libvmaf=n_threads=1:model='{_MODELS}'[vmaf];[sr2][hr2]xpsnr[xpsnr]"
        )
        command = [ffmpeg, "-hide_banner", "-nostats", "-f", "rawvideo", "-pix_fmt", "yuv420p"]
        command += ["-s", f"{width}x{2 * height}", "-r", str(fps), "-i", "pipe:0", "-lavfi", graph]
        for output in ("[vmaf]", "[xpsnr]"):
            command += ["-map", output, "-f", "null", "-"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        self._grey = np.full(width * height, 128, np.uint8).tobytes()  # chroma of both

    def add(self, sr: Plane, hr: Plane) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(sr.tobytes() + hr.tobytes() + self._grey)
        except BrokenPipeError:
            self.score()  # which says what ffmpeg said

    def score(self) -> Perceived:
        """Nothing can be added afterwards. Raises ValueError where ffmpeg gave none."""
        _, log = self._process.communicate()
        of_models = re.findall(rb"VMAF score: ([\d.]+)", log)
        xpsnr = re.search(rb"XPSNR +y: ([\d.]+|inf)", log)
        if not of_models or xpsnr is None:
            said = log.decode(errors="replace")[-300:].strip()
            raise ValueError(f"ffmpeg gave no VMAF, VMAF-NEG and XPSNR: {said}")
        vmaf, vmaf_neg, *_ = [*map(float, of_models), None]
        return Perceived(vmaf=vmaf, vmaf_neg=vmaf_neg, xpsnr_db=float(xpsnr[1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with suppress(BrokenPipeError), self._process:  # waits, and closes the pipes
            pass
