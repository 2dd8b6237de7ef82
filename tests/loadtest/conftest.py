"""A WHEP server whose behaviour is known, as an own process that dies with the test."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("whep_server.py")


@pytest.fixture(scope="session")
def whep_server() -> Iterator[Callable[..., str]]:
    """Starts one with these options, or gives the one that runs with them; returns its address."""
    running: dict[tuple[str, ...], tuple[subprocess.Popen[str], str]] = {}

    def start(*options: str) -> str:
        if options not in running:
            program = subprocess.Popen(
                [sys.executable, str(PROGRAM), *options], stdout=subprocess.PIPE, text=True
            )
            assert program.stdout is not None
            running[options] = program, program.stdout.readline().strip()
        return running[options][1]

    yield start
    for program, _address in running.values():
        program.kill()
        program.communicate()


def known(address: str, what: str) -> int:
    """What the server itself counts: `sessions` it has now, packets `lost` on the way."""
    with urllib.request.urlopen(address + what, timeout=10) as answer:
        return int(json.load(answer))
