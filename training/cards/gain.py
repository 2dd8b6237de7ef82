"""How much better than Lanczos's a model's compressed clips are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from training.cards.evaluation import Evaluation
from training.judge.video_quality import VideoResult

Pair = tuple[VideoResult, VideoResult]  # the model's and Lanczos's, of one clip at one CRF


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Differences of one figure, the model's less Lanczos's: their mean and the worst of them."""

    mean: float
    worst: float

    @classmethod
    def of(cls, differences: Sequence[float], *, less_is_better: bool = False) -> Self:
        worst = max(differences) if less_is_better else min(differences)
        return cls(mean=sum(differences) / len(differences), worst=worst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """Over clips and CRFs. VMAF and VMAF-NEG are None where they were not measured."""

    psnr_db: Gain
    vmaf: Gain | None
    vmaf_neg: Gain | None
    flicker: Gain


def pairs(evaluation: Evaluation, crf: int | None = None) -> list[Pair]:
    """All, or those at one CRF."""
    return [
        (ours, theirs)
        for clip, results in evaluation.int8.videos.items()
        for ours, theirs in zip(results, evaluation.lanczos.videos[clip], strict=True)
        if crf in (None, ours.crf)
    ]


def gains(of: Sequence[Pair]) -> Gains:
    return Gains(
        psnr_db=Gain.of([ours.psnr_db - theirs.psnr_db for ours, theirs in of]),
        vmaf=_perceived([(ours.vmaf, theirs.vmaf) for ours, theirs in of]),
        vmaf_neg=_perceived([(ours.vmaf_neg, theirs.vmaf_neg) for ours, theirs in of]),
        flicker=Gain.of([ours.flicker - theirs.flicker for ours, theirs in of], less_is_better=True),
    )


def _perceived(of: Sequence[tuple[float | None, float | None]]) -> Gain | None:
    measured = [ours - theirs for ours, theirs in of if ours is not None and theirs is not None]
    return Gain.of(measured) if len(measured) == len(of) else None
