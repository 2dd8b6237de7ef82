"""The page on what a viewer gets for a bitrate: figures, curves and crops of clips, written in one go."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.data.images import Rgb
from training.judge.delivered import PRESET, SOURCE, Comparison, Delivered, Way
from training.judge.evaluate import Attempt, Judged
from training.judge.rate import RatePoint, bd_quality, bd_rate
from training.judge.sets import SetImage
from training.judge.video_quality import VideoResult
from training.quality import score
from training.report.crops import write_crops
from training.report.plots import Figure, logarithmic, save_plot
from training.report.render import Table

Measure = Callable[[VideoResult], float | None]
MEASURES: dict[str, Measure] = {
    "VMAF": lambda result: result.vmaf,
    "VMAF-NEG": lambda result: result.vmaf_neg,
    "XPSNR-Y": lambda result: result.xpsnr_db,
}


def write_page(
    comparisons: Sequence[Comparison], names: dict[str, str], command: str, page: Path, note: str = ""
) -> None:
    """Writes Markdown to `page`, and its pictures to the folder of the same name beside it. `names`: what
    each way is called. Every comparison has the same ways."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    first = comparisons[0]
    parts = [
        "# Video as its viewers get it\n",
        f"Written by `{command}`.{' ' * bool(note)}{note}\n",
        f"Each clip is made 1/{first.clip.scale} as large, compressed as a live source is (x264, veryfast,"
        f" CRF {first.source_crf}), and brought to a viewer in several ways, all by x264 as the service"
        f" has it ({PRESET}, zerolatency, no B-frames), at several CRF and without its limit of the bitrate:"
        " upscaled here and encoded large, or, as “source”, encoded as small as it came and enlarged by the"
        " player (bicubic). So few frames have one key frame, which weighs more in their bitrates than in"
        " those of long streams."
        " VMAF, VMAF-NEG and XPSNR are ffmpeg's, on luma, against the original; flicker is the RMS of what"
        " changes from frame to frame and does not in the original.\n",
        "BD-rate is how much more bitrate a way takes for the same quality, on average where both curves"
        " are; BD-VMAF and its kin how much more quality it has at the same bitrate. “–” stands where the"
        " curves have nothing in common: the better one begins above the end of the other.\n",
    ]
    for comparison in comparisons:
        title = comparison.clip.path.name
        stem = comparison.clip.path.stem
        size = f"{comparison.clip.width}×{comparison.clip.height}, {comparison.frames} frames"
        source = f"the source has {comparison.source_bps / 1000:.0f} kbit/s"
        _plot(comparison, names, folder / f"{stem}.png")
        crops = _crops(comparison, names, folder)
        parts += [
            f"## {title}\n",
            f"{size}; {source}.\n",
            _deltas(comparison, names).markdown(),
            f"![{title}]({folder.name}/{stem}.png)\n",
            _figures(comparison, names).markdown(),
            f"The place where bicubic is worst, each way at the rate next to that of the middle of ours:\n\n"
            f"![{title}]({folder.name}/{crops.name})\n",
        ]
    page.write_text("\n".join(parts))


def _figures(comparison: Comparison, names: dict[str, str]) -> Table:
    rows = []
    for way in comparison.ways:
        for rate in way.rates:
            result = rate.result
            measured = [measure(result) for measure in MEASURES.values()]
            assert result.bitrate_bps is not None
            rows.append(
                (
                    names[way.name],
                    str(result.crf),
                    f"{result.bitrate_bps / 1000:.0f}",
                    f"{result.psnr_db:.2f}",
                    *("–" if figure is None else f"{figure:.2f}" for figure in measured),
                    f"{result.flicker:.3f}",
                )
            )
    return Table(header=("", "CRF", "kbit/s", "PSNR-Y", *MEASURES, "flicker"), rows=rows, names=1)


def _deltas(comparison: Comparison, names: dict[str, str]) -> Table:
    rows = []
    others = [way for way in comparison.ways if way.name in (SOURCE, "lanczos")]
    for way in comparison.ways:
        for other in others:
            if way.name in (SOURCE, other.name):
                continue
            cells = []
            for measure in MEASURES.values():
                curves = _curve(way, measure), _curve(other, measure)
                rate, quality = bd_rate(*curves), bd_quality(*curves)
                cells += ["–" if rate is None else f"{100 * rate:+.1f} %"]
                cells += ["–" if quality is None else f"{quality:+.2f}"]
            rows.append((names[way.name], names[other.name], *cells))
    header = ["", "against"]
    for name in MEASURES:
        header += [f"BD-rate, {name}", f"BD-{name}"]
    return Table(header=header, rows=rows, names=2)


def _curve(way: Way, measure: Measure) -> list[RatePoint]:
    points = []
    for rate in way.rates:
        quality = measure(rate.result)
        if quality is not None:
            assert rate.result.bitrate_bps is not None
            points.append(RatePoint(bitrate_bps=rate.result.bitrate_bps, quality=quality))
    return points


def _plot(comparison: Comparison, names: dict[str, str], out: Path) -> None:
    figure = Figure(figsize=(5 * len(MEASURES), 4), layout="constrained")
    for column, (name, measure) in enumerate(MEASURES.items(), 1):
        axes = figure.add_subplot(1, len(MEASURES), column)
        for way in comparison.ways:
            points = _curve(way, measure)
            across = [point.bitrate_bps / 1000 for point in points]
            axes.plot(across, [point.quality for point in points], marker="o", label=names[way.name])
        logarithmic(axes)
        axes.set_xlabel("kbit/s to the viewer")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    save_plot(figure, out)


def _crops(comparison: Comparison, names: dict[str, str], folder: Path) -> Path:
    """Grey, as only luma is judged. What is ours is the last way."""
    ours = comparison.ways[-1].rates
    middle = ours[len(ours) // 2].result.bitrate_bps
    assert middle is not None
    clip, hr = comparison.clip, _grey(comparison.hr)
    attempts, labels = [], []
    for way in comparison.ways:
        rate = min(way.rates, key=lambda rate: _distance(rate, middle))
        picture = _grey(rate.picture)
        psnr_db, ssim = score(picture, hr, clip.scale)
        assert rate.result.bitrate_bps is not None
        attempts.append(Attempt(sr=picture, psnr_db=psnr_db, ssim=ssim))
        labels.append(f"{names[way.name]}, {rate.result.bitrate_bps / 1000:.0f} kbit/s")
    image = SetImage(name=clip.path.stem, lr=_grey(comparison.lr), hr=hr, lr_given=False)
    judged = Judged(image=image, attempts=tuple(attempts))
    return write_crops(judged, labels, clip.scale, None, folder, "crops", with_bicubic=False)


def _distance(rate: Delivered, bitrate_bps: float) -> float:
    assert rate.result.bitrate_bps is not None
    return abs(float(np.log(rate.result.bitrate_bps / bitrate_bps)))


def _grey(luma: np.ndarray) -> Rgb:
    return np.repeat(luma[:, :, None], 3, axis=2)
