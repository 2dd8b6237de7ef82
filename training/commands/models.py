"""`livesr models`: measures the models that ship, and writes their cards and the page about all of them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.files import replace_file
from engine.progress import working
from engine.shipped import model_folder, zoo
from training.cards.card import card
from training.cards.evaluation import Evaluation, Material
from training.cards.model import CARD, EVALUATION, Model, read_model, read_training_data
from training.cards.page import page
from training.commands.evaluate import add_material_arguments, check_material
from training.judge.clip import open_clip
from training.judge.contenders import Contender, open_contender
from training.judge.evaluate import Result, judge, mean
from training.judge.perceived import UNAVAILABLE, perceptual_ffmpeg
from training.judge.sets import SetFolder, find, load
from training.judge.video_quality import VideoResult, judge_video
from training.paper.comparison import Row
from training.report.outputs import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_material_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the page about all models to write"
    )


def run(args: argparse.Namespace) -> int:
    check_material(args)
    check_file("--out", args.out)
    models = read_models()
    material = Material(
        sets=tuple(folder.name for folder in args.sets),
        videos=tuple(clip.name for clip in args.videos),
        crfs=tuple(args.crfs),
        frames=args.frames if args.videos else 0,
    )
    if args.sets or args.videos:
        if args.videos and perceptual_ffmpeg() is None:
            print(UNAVAILABLE, file=sys.stderr)
        for scale in sorted({model.config.scale for model in models}):
            stale = [
                model
                for model in models
                if model.config.scale == scale
                and (model.evaluation is None or model.evaluation.material != material)
            ]
            if stale:
                evaluate(stale, scale, material, args.sets, args.videos)
        models = read_models()
    for path, text in pages(models, args.out).items():
        replace_file(path, text.encode())
        print(path)
    return 0


def read_models() -> list[Model]:
    """Those that ship, small ones first within a scale."""
    models = [read_model(name) for name in zoo()]
    return sorted(models, key=lambda model: (model.config.scale, model.config.folded_macs_per_lr_pixel))


def pages(models: Sequence[Model], out: Path) -> dict[Path, str]:
    """Each model's card and the page about all, by where they belong."""
    data = read_training_data()
    for model in models:
        if model.evaluation is None:
            print(f"{model.name} has not been measured since it changed: give --set", file=sys.stderr)
        for run in model.runs():
            if run["data_sha256"] not in data:
                unknown = f"data_sha256 {run['data_sha256']} of {model.name}"
                print(f"{unknown} is not in training-data.toml: say there what it is", file=sys.stderr)
    cards = {model_folder(model.name) / CARD: card(model, data) for model in models}
    return cards | {out: page(models)}


def evaluate(
    models: Sequence[Model], scale: int, material: Material, sets: Sequence[SetFolder], videos: Sequence[Path]
) -> None:
    """Judges models of one scale together, and leaves in the folder of each what came out."""
    names = [model.name for model in models]
    print(f"measuring {', '.join(names)}", file=sys.stderr)
    int8 = [open_contender(name, scale, "openvino", "int8") for name in names]
    float32 = [open_contender(name, scale, "openvino", "float32") for name in names]
    bicubic, lanczos = open_contender("bicubic", scale), open_contender("lanczos", scale)
    of_sets = {folder.name: _judge_set([*int8, *float32, bicubic], folder) for folder in sets}
    of_clips: dict[str, list[list[VideoResult]]] = {}
    for path in videos:
        with working(f"judging {path.name}"):
            clip = open_clip(path, scale)
            of_clips[path.name] = judge_video(
                [*int8, lanczos], clip, material.crfs or [None], material.frames
            )

    def row(contender: Contender, *, in_sets: int | None = None, in_clips: int | None = None) -> Row:
        scores = {} if in_sets is None else {name: of_all[in_sets] for name, of_all in of_sets.items()}
        clips = {} if in_clips is None else {name: of_all[in_clips] for name, of_all in of_clips.items()}
        return Row.measured(contender, scores, clips)

    for i, model in enumerate(models):
        evaluation = Evaluation(
            checkpoint_sha256=model.checkpoint_sha256,
            artifact_files=model.artifact.files,
            material=material,
            int8=row(int8[i], in_sets=i, in_clips=i),
            float32=row(float32[i], in_sets=len(names) + i),
            bicubic=row(bicubic, in_sets=-1),
            lanczos=row(lanczos, in_clips=-1),
        )
        text = json.dumps(evaluation.to_dict(), indent=1) + "\n"
        replace_file(model_folder(model.name) / EVALUATION, text.encode())


def _judge_set(contenders: Sequence[Contender], folder: SetFolder) -> list[Result]:
    scale = contenders[0].scale
    figures: list[list[tuple[float, float]]] = [[] for _ in contenders]
    with working(f"judging {folder.name}"):
        images = (load(file, scale) for file in find(folder, scale))
        for judged in judge([contender.upscale for contender in contenders], scale, images):
            for attempt, of_contender in zip(judged.attempts, figures, strict=True):
                of_contender.append((attempt.psnr_db, attempt.ssim))
    return [mean(of_contender) for of_contender in figures]
