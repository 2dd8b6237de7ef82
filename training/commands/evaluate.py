"""`livesr evaluate`: PSNR and SSIM of models on image sets and video clips, by the paper's protocol."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from engine.frame import Precision
from engine.load import BACKENDS
from engine.progress import Progress, working
from training.judge.clip import open_clip
from training.judge.contenders import INTERPOLATIONS, Contender, open_contender
from training.judge.evaluate import Result, judge, mean
from training.judge.perceived import UNAVAILABLE, perceptual_ffmpeg
from training.judge.sets import SetFile, SetFolder, SetImage, find, load
from training.judge.video_quality import judge_video
from training.paper.comparison import Row, image_table, short, to_csv, to_json, video_table
from training.paper.tables import others, table_5
from training.report.crops import Crop, write_crops
from training.report.outputs import check_file, check_page

SOURCE_CRF = 23


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model", action="append", required=True, dest="models", metavar="MODEL",
        help="shipped model, artifact, checkpoint of any network (.pth: of others), 'bicubic' or 'lanczos'; "
        "may be repeated",
    )  # fmt: skip
    add("--scale", type=int, help="must be the models' own; says the scale of 'bicubic' and 'lanczos'")
    add("--backend", choices=BACKENDS, help="of AWSRN models; default: the best of this machine")
    add("--precision", choices=get_args(Precision), help="of AWSRN models; default: the backend's choice")
    add_material_arguments(parser)
    add("--paper", action="store_true", help="show the systems of the paper as well (text, CSV, Markdown)")
    add("--plot", type=Path, metavar="PNG", help="PSNR over Mult-Adds among the paper's systems")
    add("--crops", type=Path, metavar="DIR", help="a detail of each image, of HR, bicubic and each model")
    add("--crop", type=_crop, metavar="X,Y,W,H", help="which detail, in HR pixels; default: bicubic's worst")
    add(
        "--page", type=Path, metavar="FILE",
        help="write what viewers of the clips get at equal bitrates, with plots and crops, and nothing else",
    )  # fmt: skip
    add("--note", metavar="TEXT", help="a sentence for --page: whose the clips are")
    add("--source-crf", type=int, metavar="CRF", help=f"of the sources for --page (default {SOURCE_CRF})")
    add("--json", action="store_true", help="instead of the text")
    add("--csv", type=Path, metavar="FILE")
    add("--markdown", type=Path, metavar="FILE")


def add_material_arguments(parser: argparse.ArgumentParser) -> None:
    """What models are judged on."""
    add = parser.add_argument
    add(
        "--set", type=set_folder, action="append", default=[], dest="sets", metavar="NAME=DIR[,LR_DIR]",
        help="HR images, in DIR or in a benchmark's usual layout; LR is read where it is given, else made; "
        "may be repeated",
    )  # fmt: skip
    add(
        "--video", type=Path, action="append", default=[], dest="videos", metavar="CLIP",
        help="HR clip to make small and upscale again, interpolation beside; may be repeated",
    )  # fmt: skip
    add(
        "--crf", type=int, action="append", default=[], dest="crfs", metavar="CRF",
        help="compress LR clips so by H.264 first; default: not at all; may be repeated",
    )  # fmt: skip
    add("--frames", type=int, default=100, metavar="N", help="of each clip, at most (default 100)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    try:
        contenders = _contenders(args)
        if args.plot:
            # matplotlib: only a plot needs it.
            from training.paper.tradeoff import plot_tradeoff
        if args.page:
            # matplotlib, torch and scipy: only the page needs them.
            from training.commands.evaluate_page import deliver_and_write
    except ModuleNotFoundError as exc:
        extra = "foreign" if exc.name in ("spandrel", "einops") else "train"
        raise ValueError(f"this needs {exc.name}: pip install 'livesr[{extra}]'") from exc
    scale = contenders[0].scale
    files = {folder.name: find(folder, scale) for folder in args.sets}
    clips = {path.name: open_clip(path, scale) for path in args.videos}
    if clips and perceptual_ffmpeg() is None:
        print(UNAVAILABLE, file=sys.stderr)
    if args.page:
        source_crf = SOURCE_CRF if args.source_crf is None else args.source_crf
        deliver_and_write(contenders, list(clips.values()), source_crf, args)
        return 0
    results = {name: _judge_set(contenders, name, of_set, args) for name, of_set in files.items()}
    videos = {}
    for name, clip in clips.items():
        with working(f"judging {name}"):
            videos[name] = judge_video(contenders, clip, args.crfs or [None], args.frames)
    measured = [
        Row.measured(
            contender,
            {name: means[i] for name, means in results.items()},
            {name: of_all[i] for name, of_all in videos.items()},
        )
        for i, contender in enumerate(contenders)
    ]
    paper = [Row.of_paper(system) for system in (*table_5(scale), *others(scale))]
    rows = measured + (paper if args.paper else [])
    tables = [image_table(rows, list(results))] if results else []
    tables += [video_table(measured, list(videos))] if videos else []
    if args.json:
        documents = [to_json(row) for row in measured]
        print(json.dumps(documents[0] if len(documents) == 1 else documents))
    else:
        print("\n".join(table.text() for table in tables), end="")
    if args.csv:
        args.csv.write_text(to_csv(rows, list(results)))
    if args.markdown:
        args.markdown.write_text("\n".join(table.markdown() for table in tables))
    if args.plot:
        plot_tradeoff(measured, paper, list(results), args.plot)
    return 0


def set_folder(text: str) -> SetFolder:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=DIR or NAME=HR_DIR,LR_DIR")
    hr, comma, lr = folder.partition(",")
    if comma and not Path(folder).is_dir():
        return SetFolder(name=name, hr=Path(hr), lr=Path(lr))
    return SetFolder(name=name, hr=Path(folder))


def _crop(text: str) -> Crop:
    try:
        return Crop.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _check(args: argparse.Namespace) -> None:
    """What would otherwise fail after the work is done."""
    if not (args.sets or args.videos):
        raise ValueError("nothing to evaluate on: give --set or --video")
    _check_once("--model", args.models)
    check_material(args)
    for option in ("plot", "crops", "paper"):
        if getattr(args, option) and not args.sets:
            raise ValueError(f"--{option} needs a --set")
    _check_with_page(args)
    if args.crop and not args.crops:
        raise ValueError("--crop needs --crops, the folder to write to")
    for option in ("csv", "markdown", "plot"):
        if path := getattr(args, option):
            check_file(f"--{option}", path)
    if args.crops and args.crops.exists() and not args.crops.is_dir():
        raise ValueError(f"--crops {args.crops} must be a folder")


def _check_with_page(args: argparse.Namespace) -> None:
    if args.page is None:
        for option, given in (("--note", args.note), ("--source-crf", args.source_crf)):
            if given is not None:
                raise ValueError(f"{option} {given} needs a --page")
        return
    if not args.videos:
        raise ValueError("--page needs a --video")
    for option in ("set", "paper", "json", "csv", "markdown", "plot", "crops"):
        if getattr(args, "sets" if option == "set" else option):
            raise ValueError(f"--{option} can't be given with --page, which is written and nothing else")
    if args.source_crf is not None:
        _check_crfs("--source-crf", [args.source_crf])
    check_page("--page", args.page)


def check_material(args: argparse.Namespace) -> None:
    """Raises ValueError where the options of `add_material_arguments` do not fit together."""
    _check_once("--set", [folder.name for folder in args.sets])
    _check_once("--video", [clip.name for clip in args.videos])
    if args.crfs and not args.videos:
        raise ValueError("--crf needs a --video")
    _check_crfs("--crf", args.crfs)
    if args.frames < 2:
        raise ValueError(f"--frames {args.frames} must be at least 2: flicker is from one to the next")


def _check_once(option: str, names: Sequence[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{option} {twice.pop()} is given twice")


def _check_crfs(option: str, crfs: Sequence[int]) -> None:
    if any(not 0 <= crf <= 51 for crf in crfs):
        raise ValueError(f"{option} {crfs} must be 0 to 51")


def _contenders(args: argparse.Namespace) -> list[Contender]:
    """Contenders in the order given. A clip's figures mean little without the interpolations': they come
    along."""
    models = args.models + [name for name in INTERPOLATIONS if args.videos and name not in args.models]
    networks = {
        model: open_contender(model, args.scale, args.backend, args.precision)
        for model in models
        if model not in INTERPOLATIONS
    }
    scales = sorted({contender.scale for contender in networks.values()})
    if len(scales) > 1:
        raise ValueError(f"models of the scales {scales} can't be compared: they must have one")
    scale = scales[0] if scales else args.scale
    return [networks.get(model) or open_contender(model, scale) for model in models]


def _judge_set(
    contenders: Sequence[Contender], name: str, files: Sequence[SetFile], args: argparse.Namespace
) -> list[Result]:
    scale = contenders[0].scale
    labels = [short(contender.name) for contender in contenders]
    figures: list[list[tuple[float, float]]] = [[] for _ in contenders]
    made = 0
    progress = Progress("images", name)

    def images() -> Iterator[SetImage]:
        for number, file in enumerate(files):
            progress.show(number, len(files))
            yield load(file, scale)
        progress.show(len(files), len(files))

    for judged in judge([contender.upscale for contender in contenders], scale, images()):
        made += not judged.image.lr_given
        for attempt, of_contender in zip(judged.attempts, figures, strict=True):
            of_contender.append((attempt.psnr_db, attempt.ssim))
        if args.crops:
            write_crops(judged, labels, scale, args.crop, args.crops, name)
    progress.end()
    if made and any(file.lr for file in files):
        print(
            f"{name}: the LR of {made} of {len(files)} images was made here: none fits",
            file=sys.stderr,
        )
    return [mean(of_contender) for of_contender in figures]
