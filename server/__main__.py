"""The `livesr` command: one table of sub-commands, each imported only when it is called.

Importing late keeps `livesr serve` free of torch, and a machine without the `train` extra free of errors
about it.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from engine.errors import DeviceFailed

# name: (module with add_arguments(parser) and run(args) -> exit status, help line)
COMMANDS = {
    "serve": ("server.commands.serve", "run the live service"),
    "check-config": ("server.commands.check_config", "check a settings file, and the environment's settings"),
    "token": ("server.commands.token", "make a token that lets someone in"),
    "upscale": ("server.commands.upscale", "upscale a video or image file"),
    "bench": ("server.commands.bench", "measure the engine, or the whole pipeline"),
    "capacity": ("server.commands.capacity", "how many streams this machine carries, by network"),
    "doctor": ("server.commands.doctor", "show what this machine has and which backend will be used"),
    "convert": ("engine.commands.convert", "make a checkpoint of the authors' released state dict"),
    "build": ("engine.commands.build", "compile a checkpoint into an artifact"),
    "export": ("engine.commands.export", "write a model as ONNX, for other programs"),
    "roofline": ("engine.commands.roofline", "the floor under a frame's time on GPUs, on paper"),
    "train": ("training.commands.train", "train a network"),
    "prune": ("training.commands.prune", "remove AWMS branches that carry little, and fine-tune"),
    "ablate": ("training.commands.ablate", "the paper's tables 1-4, and figures 4 and 5"),
    "models": ("training.commands.models", "measure the models that ship, and write the page about them"),
    "evaluate": ("training.commands.evaluate", "PSNR and SSIM of a model on image sets"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; user errors are one line on stderr and status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="livesr")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module: Any = None
    for name, (path, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if words and words[0] == name:
            try:
                module = importlib.import_module(path)
            except ModuleNotFoundError as exc:
                if exc.name is None or exc.name.split(".")[0] in ("server", "engine", "training"):
                    raise
                print(f"livesr {name}: needs {exc.name}: pip install 'livesr[train]'", file=sys.stderr)
                return 2
            module.add_arguments(subparser)
    args = parser.parse_args(words)
    try:
        return int(module.run(args))
    except (ValueError, OSError, DeviceFailed) as exc:
        print(f"livesr {args.command}: {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
