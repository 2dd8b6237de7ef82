"""What a run shows while it goes: a progress bar and TensorBoard curves."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.recipes import Recipe


class Progress:
    """A bar with loss, PSNR, it/s and ETA on stderr, and `run/tensorboard`; silent where `shown` is false."""

    def __init__(self, run: Path, recipe: Recipe, first: int, shown: bool) -> None:
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=first) if shown else None
        self._bar = tqdm(
            total=recipe.iterations,
            initial=first,
            unit="it",
            disable=not shown,
            file=sys.stderr,
            mininterval=5,
        )
        self._loss = recipe.loss
        self._psnr = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()

    def advance(self) -> None:
        self._bar.update()

    def report(self, iteration: int, loss: float, rate: float, psnr_db: float | None) -> None:
        if psnr_db is not None:
            self._psnr = f", PSNR-Y {psnr_db:.2f} dB"
        self._bar.set_postfix_str(f"{self._loss} {loss:.3f}{self._psnr}")
        if self._writer:
            self._writer.add_scalar(f"loss/{self._loss}", loss, iteration)
            self._writer.add_scalar("rate", rate, iteration)
            if psnr_db is not None:
                self._writer.add_scalar("validation/PSNR-Y", psnr_db, iteration)
