"""Judges upscalers on video: each frame's PSNR and SSIM, VMAF and XPSNR, and how much the result flickers."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.frame import Plane
from training.judge.clip import H264, Clip, hr_frames, lr_frames
from training.judge.contenders import Contender
from training.judge.perceived import Perception, perceptual_ffmpeg
from training.quality import FloatImage, flicker, psnr, ssim

# libvmaf's own bound for 8 bits. Without one, a black frame, which all get right, makes the mean infinite.
MAX_PSNR_DB = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """Means over a clip's frames, all on luma. crf and bitrate_bps are the LR stream's, None where it was not
    compressed; VMAF, VMAF-NEG and XPSNR are None where they could not be measured; flicker as in
    `training.quality`: less is better."""

    crf: int | None
    bitrate_bps: float | None
    frames: int
    psnr_db: float
    ssim: float
    vmaf: float | None
    vmaf_neg: float | None
    xpsnr_db: float | None
    flicker: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_video(
    contenders: Sequence[Contender], clip: Clip, crfs: Sequence[int | None], frames: int
) -> list[list[VideoResult]]:
    """Each contender's results on the first `frames` frames, one for each of `crfs` (None: not compressed).

    HR becomes LR by MATLAB's bicubic, which is encoded and decoded by x264, upscaled, and compared with HR;
    a border of `scale` pixels is left out, but for VMAF and XPSNR. Raises ValueError naming a clip that
    breaks off.
    """
    size = clip.width // clip.scale, clip.height // clip.scale
    upscalers = [contender.open_video(*size, clip.colour) for contender in contenders]
    results: list[list[VideoResult]] = [[] for _ in contenders]
    for crf in crfs:
        codec = None if crf is None else H264(*size, clip.fps, crf)
        lr = lr_frames(clip, frames)
        with ExitStack() as stack:
            meters = [Meter(clip, stack) for _ in contenders]
            pairs = zip(hr_frames(clip, frames), codec.through(lr) if codec else lr, strict=True)
            for hr, frame in pairs:
                for upscale, meter in zip(upscalers, meters, strict=True):
                    meter.add(upscale(frame), hr.y)
            for meter, of_contender in zip(meters, results, strict=True):
                bitrate_bps = codec.bitrate_bps(meter.frames) if codec else None
                of_contender.append(meter.result(crf, bitrate_bps))
    return results


class Meter:
    """Adds up one contender's frames."""

    def __init__(self, clip: Clip, stack: ExitStack) -> None:
        self._clip = clip
        self._psnr_db: list[float] = []
        self._ssim: list[float] = []
        self._flicker: list[float] = []
        self._before: tuple[FloatImage, FloatImage] | None = None
        ffmpeg, size = perceptual_ffmpeg(), (clip.width, clip.height)
        self._perception = ffmpeg and stack.enter_context(Perception(ffmpeg, *size, clip.fps))

    @property
    def frames(self) -> int:
        return len(self._psnr_db)

    def add(self, sr: Plane, hr: Plane) -> None:
        if self._perception:
            self._perception.add(sr, hr)
        border = self._clip.scale
        a, b = (plane[border:-border, border:-border].astype(np.float64) for plane in (sr, hr))
        self._psnr_db.append(min(psnr(a, b), MAX_PSNR_DB))
        self._ssim.append(ssim(a, b))
        if self._before is not None:
            self._flicker.append(flicker(a, self._before[0], b, self._before[1]))
        self._before = a, b

    def result(self, crf: int | None, bitrate_bps: float | None) -> VideoResult:
        if not self._flicker:
            raise ValueError(f"{self._clip.path} has {self.frames} frames, must have at least 2")
        seen = self._perception.score() if self._perception else None
        return VideoResult(
            crf=crf,
            bitrate_bps=bitrate_bps,
            frames=self.frames,
            psnr_db=float(np.mean(self._psnr_db)),
            ssim=float(np.mean(self._ssim)),
            vmaf=seen.vmaf if seen else None,
            vmaf_neg=seen.vmaf_neg if seen else None,
            xpsnr_db=min(seen.xpsnr_db, MAX_PSNR_DB) if seen else None,
            flicker=float(np.mean(self._flicker)),
        )
