"""What a frame costs in CPU time, measured while the stream runs."""

_LEAST_FRAMES = 5
_NEW_SHARE = 0.3  # of the last measurement in the running mean


class FrameCost:
    """CPU time of the whole process for each frame, by the level of the ladder that upscaled it."""

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
