"""What was measured, beside what the paper says: rows of one comparison, as tables, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from training.judge.contenders import Contender
from training.judge.evaluate import Result
from training.judge.video_quality import VideoResult
from training.paper.tables import System
from training.report.render import Table, giga, kilo
from training.searched import SEARCHED

_CSV_FIELDS = (
    "model", "searched", "engine", "scale", "parameters", "mult_adds", "size_damaged", "set", "images",
    "psnr_db", "ssim", "damaged", "crf", "bitrate_bps", "vmaf", "vmaf_neg", "xpsnr_db", "flicker",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Figures on one set. `images` is None where others measured, `ssim` where they did not measure that;
    `damaged` as in `training.paper.tables`."""

    psnr_db: float
    ssim: float | None
    images: int | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system. `engine`: what computed it here, or where it is published: "paper" for table 5, "its paper"
    for others. `videos`: by clip, each at every CRF."""

    name: str
    engine: str
    scale: int
    parameters: int | None
    mult_adds: float | None
    scores: Mapping[str, Score]
    videos: Mapping[str, Sequence[VideoResult]]
    size_damaged: bool = False

    @property
    def from_paper(self) -> bool:
        return self.engine in ("paper", "its paper")

    @property
    def searched(self) -> bool:
        return self.from_paper and self.name.lower() in SEARCHED

    @property
    def label(self) -> str:
        return short(self.name) + "†" * self.searched

    @classmethod
    def measured(
        cls,
        contender: Contender,
        results: Mapping[str, Result],
        videos: Mapping[str, Sequence[VideoResult]],
    ) -> Self:
        return cls(
            name=contender.name,
            engine=contender.engine,
            scale=contender.scale,
            parameters=contender.parameters,
            mult_adds=contender.mult_adds,
            scores={n: Score(psnr_db=r.psnr_db, ssim=r.ssim, images=r.images) for n, r in results.items()},
            videos=videos,
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """From what `to_json` made of one that was measured."""
        return cls(
            name=fields["model"],
            engine=fields["engine"],
            scale=fields["scale"],
            parameters=fields["parameters"],
            mult_adds=fields["mult_adds"],
            scores={name: Score(**figures) for name, figures in fields["sets"].items()},
            videos={
                clip: [VideoResult(**result) for result in results]
                for clip, results in fields.get("videos", {}).items()
            },
        )

    @classmethod
    def of_paper(cls, system: System) -> Self:
        return cls(
            name=system.name,
            engine="paper" if system.in_table_5 else "its paper",
            scale=system.scale,
            parameters=system.parameters,
            mult_adds=system.mult_adds,
            scores={
                name: Score(psnr_db=cell.psnr_db, ssim=cell.ssim, damaged=cell.damaged)
                for name, cell in system.cells.items()
            },
            videos={},
            size_damaged=system.size_damaged,
        )


def image_table(rows: Sequence[Row], sets: Sequence[str]) -> Table:
    """A line for each system, PSNR/SSIM of each set in a column: the paper's table 5."""
    images = {name: row.scores[name].images for row in rows for name in sets if not row.from_paper}
    lines = [
        (
            row.label,
            row.engine,
            "–" if row.parameters is None else "*" * row.size_damaged + kilo(row.parameters),
            "–" if row.mult_adds is None else giga(row.mult_adds),
            *(_score(row.scores.get(name)) for name in sets),
        )
        for row in rows
    ]
    notes = []
    if any("*" in cell for line in lines for cell in line[2:]):
        notes.append("* misprinted in the paper, or damaged in the copy it was read from")
    if any(row.label.endswith("†") for row in rows):
        notes.append("† found by a search; its cells are not published, and no network here has them")
    return Table(
        header=[
            f"×{rows[0].scale}",
            "engine",
            "params",
            "Mult-Adds",
            *(f"{name} ({images[name]})" for name in sets),
        ],
        rows=lines,
        names=2,
        note="\n".join(notes),
    )


def video_table(rows: Sequence[Row], clips: Sequence[str]) -> Table:
    """A line for each clip, CRF and system, so that those to compare stand together."""
    lines = []
    for clip in clips:
        measured = [(row, result) for row in rows for result in row.videos.get(clip, ())]
        # Sorting is stable: within a CRF the systems keep their order.
        for row, result in sorted(measured, key=lambda pair: pair[1].crf or 0):
            lines.append(
                (
                    clip,
                    "–" if result.crf is None else str(result.crf),
                    row.label,
                    row.engine,
                    "–" if result.bitrate_bps is None else f"{result.bitrate_bps / 1000:.0f}",
                    str(result.frames),
                    f"{result.psnr_db:.2f}",
                    f"{result.ssim:.4f}",
                    *(
                        "–" if figure is None else f"{figure:.2f}"
                        for figure in (result.vmaf, result.vmaf_neg, result.xpsnr_db)
                    ),
                    f"{result.flicker:.3f}",
                )
            )
    columns = ("kbit/s", "frames", "PSNR-Y", "SSIM-Y", "VMAF", "VMAF-NEG", "XPSNR-Y", "flicker")
    return Table(header=("clip", "CRF", f"×{rows[0].scale}", "engine", *columns), rows=lines, names=4)


def to_csv(rows: Sequence[Row], sets: Sequence[str]) -> str:
    """A line for each system and set, or clip and CRF; figures unrounded, empty where there is none;
    marks of the text's notes as 0 or 1."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        system = {
            "model": row.name,
            "searched": int(row.searched),
            "engine": row.engine,
            "scale": row.scale,
            "parameters": row.parameters,
            "mult_adds": row.mult_adds,
            "size_damaged": int(row.size_damaged),
        }
        for name in sets:
            if (score := row.scores.get(name)) is not None:
                figures = {"images": score.images, "psnr_db": score.psnr_db, "ssim": score.ssim}
                writer.writerow(system | {"set": name, "damaged": int(score.damaged)} | figures)
        for clip, results in row.videos.items():
            for result in results:
                fields = result.to_dict()
                writer.writerow(system | {"set": clip, "images": fields.pop("frames"), "damaged": 0} | fields)
    return out.getvalue()


def to_json(row: Row) -> dict[str, Any]:
    """What was measured of one system; `videos` only where clips were asked for."""
    sets = {
        name: {"images": score.images, "psnr_db": score.psnr_db, "ssim": score.ssim}
        for name, score in row.scores.items()
    }
    videos = {clip: [result.to_dict() for result in results] for clip, results in row.videos.items()}
    fields: dict[str, Any] = {
        "model": row.name,
        "engine": row.engine,
        "scale": row.scale,
        "parameters": row.parameters,
        "mult_adds": row.mult_adds,
        "sets": sets,
    }
    return fields | ({"videos": videos} if videos else {})


def short(model: str) -> str:
    """Short name of a path: the file and its folder, as many files are named checkpoint."""
    return "/".join(Path(model).parts[-2:]).removesuffix(".safetensors")


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    # Alignment is to the right: the mark goes in front, where it does not shift the figures.
    ssim = "–" if score.ssim is None else f"{score.ssim:.4f}"
    return f"{'*' if score.damaged else ''}{score.psnr_db:.2f}/{ssim}"
