"""The `livesr` command: one table of sub-commands, each imported only when it is called.

Importing late keeps `livesr serve` free of torch, and a machine without the `train` extra free of errors
about it.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, NoReturn

from engine.errors import DeviceFailed

# name: (module with add_arguments(parser) and run(args) -> exit status, help line)
COMMANDS = {
    "serve": ("server.commands.serve", "run the live service"),
    "streams": (
        "server.commands.streams",
        "list, show, add, remove and watch the streams of a running service",
    ),
    "drain": ("server.commands.drain", "move every stream away from a machine of the cluster"),
    "check-config": ("server.commands.check_config", "check a settings file, and the environment's settings"),
    "token": ("server.commands.token", "make a token that lets someone in"),
    "upscale": ("server.commands.upscale", "upscale a video or image file"),
    "bench": ("server.commands.bench", "measure the engine, or the whole pipeline"),
    "capacity": ("server.commands.capacity", "how many streams this machine carries, by network"),
    "completion": ("server.commands.completion", "print what completes this command's words in a shell"),
    "doctor": ("server.commands.doctor", "show what this machine has and which backend will be used"),
    "convert": ("engine.commands.convert", "make a checkpoint of the authors' released state dict"),
    "build": ("engine.commands.build", "compile a checkpoint into an artifact"),
    "export": ("engine.commands.export", "write a model as ONNX, for other programs"),
    "roofline": ("engine.commands.roofline", "the floor under a frame's time on GPUs, on paper"),
    "train": ("training.commands.train", "train a network"),
    "prune": ("training.commands.prune", "remove AWMS branches that carry little, and fine-tune"),
    "ablate": ("training.commands.ablate", "the paper's tables 1-4, and figures 4 and 5"),
    "paper": ("training.commands.paper", "judge the paper's networks as trained here, and write the page"),
    "models": ("training.commands.models", "measure the models that ship, and write the page about them"),
    "evaluate": ("training.commands.evaluate", "PSNR and SSIM of a model on image sets"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to look."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` shows what there is)\n")


def whole_parser() -> argparse.ArgumentParser:
    """Of every command whose libraries are installed."""
    return _parser(COMMANDS)[0]


def _parser(wanted: Iterable[str]) -> tuple[argparse.ArgumentParser, dict[str, Any], dict[str, str]]:
    """With the arguments of the wanted commands; their modules, and what some of them miss."""
    parser = _Parser(prog="livesr")
    parser.add_argument("--version", action="version", version=f"livesr {version('livesr')}")
    parser.set_defaults(whole_parser=whole_parser)  # for who completes its words
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, (path, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name not in wanted:
            continue
        try:
            module: Any = importlib.import_module(path)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.split(".")[0] in ("server", "engine", "training"):
                raise
            missing[name] = exc.name
            continue
        module.add_arguments(subparser)
        modules[name] = module
    return parser, modules, missing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; user errors are one line on stderr and status 2."""
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name == "serve":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as it reads its settings later, once it is imported
    parser, modules, missing = _parser([name])
    if name in missing:
        print(f"livesr {name}: needs {missing[name]}: pip install 'livesr[train]'", file=sys.stderr)
        return 2
    if name and not name.startswith("-") and name not in COMMANDS:
        alike = get_close_matches(name, COMMANDS, n=1)
        parser.error(f"no command {name!r}{f'; is it {alike[0]!r}?' if alike else ''}")
    args = parser.parse_args(words)
    try:
        status = int(modules[args.command].run(args))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who reads has had enough, as `head`: nothing is left to say, nor to flush at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ValueError, OSError, DeviceFailed) as exc:
        with suppress(OSError):
            print(f"livesr {args.command}: {exc}", file=sys.stderr)
        return 2


def _open_standard_streams() -> None:
    """Those that were closed, or a socket would take the place of one and get what libraries write there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    sys.exit(main())
