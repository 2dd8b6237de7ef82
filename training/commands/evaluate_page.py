"""`livesr evaluate --page`: what viewers of clips get at equal bitrates."""

import argparse
import json
from collections.abc import Sequence

from engine.progress import working
from training.judge.clip import Clip
from training.judge.contenders import INTERPOLATIONS, Contender
from training.judge.delivered import SOURCE, deliver
from training.paper.comparison import short
from training.report.video_page import write_page

CRFS = (20, 24, 28, 33, 38)  # of the service's encoder, which is at 22 where its bitrate allows


def deliver_and_write(
    contenders: Sequence[Contender], clips: Sequence[Clip], source_crf: int, args: argparse.Namespace
) -> None:
    """`args` are those of `livesr evaluate`."""
    # Against Lanczos; bicubic is how the player enlarges the source.
    ways = [one for one in contenders if one.name == "lanczos"]
    ways += [one for one in contenders if one.name not in INTERPOLATIONS]
    comparisons = []
    for clip in clips:
        with working(f"judging {clip.path.name}"):
            comparisons.append(deliver(ways, clip, source_crf, args.crfs or CRFS, args.frames))
    names = {SOURCE: SOURCE} | {one.name: short(one.name) for one in ways}
    write_page(comparisons, names, _command(args, source_crf), args.page, args.note or "")
    print(args.page)


def _command(args: argparse.Namespace, source_crf: int) -> str:
    """What writes the same page, by names that mean something on other machines."""
    words = [word for model in args.models for word in ("--model", short(model))]
    for option in ("scale", "backend", "precision"):
        if (value := getattr(args, option)) is not None:
            words += [f"--{option}", str(value)]
    words += [word for path in args.videos for word in ("--video", path.name)]
    words += [word for crf in args.crfs for word in ("--crf", str(crf))]
    words += ["--frames", str(args.frames), "--source-crf", str(source_crf), "--page", args.page.name]
    words += ["--note", json.dumps(args.note, ensure_ascii=False)] if args.note else []
    return " ".join(["livesr evaluate", *words])
