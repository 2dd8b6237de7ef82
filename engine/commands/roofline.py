"""`livesr roofline`: how fast a GPU can be at most, as a page of Markdown."""

import argparse

from engine.measure.roofline import page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    print(page(), end="")
    return 0
