"""`livesr completion`: what a shell asks to complete the command's words."""

import argparse
from pathlib import Path

import shtab

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS)
    parser.epilog = (
        'bash: eval "$(livesr completion bash)" in ~/.bashrc; zsh likewise, behind compinit; fish: | source'
    )


def run(args: argparse.Namespace) -> int:
    parser = args.whole_parser()
    _prepare(parser)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Says which words are files, and has shtab take no choices for sub-commands that are none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                _prepare(action.choices[name])
            continue
        if action.choices is not None:
            action.choices = list(action.choices)
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
