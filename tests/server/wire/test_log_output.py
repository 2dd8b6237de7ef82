"""Where the log can't be written: whoever logs goes on, and what was lost is told afterwards."""

import logging
import os
from collections.abc import Iterator
from fcntl import F_SETPIPE_SZ, fcntl

import pytest

from server.wire.log_output import LogOutput


class Output:
    """A log whose lines go to a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.handler = LogOutput(self.writer)
        self.handler.setFormatter(logging.Formatter("%(message)s %(count)s", defaults={"count": 0}))

    def say(self, text: str) -> None:
        self.handler.handle(logging.LogRecord("test", logging.INFO, __file__, 0, text, (), None))


@pytest.fixture
def output() -> Iterator[Output]:
    output = Output()
    yield output
    output.handler.close()
    os.close(output.reader)
    os.close(output.writer)


def test_nobody_waits_for_a_reader_that_has_stopped(output):
    for _ in range(3000):
        output.say("x" * 1000)
    output.handler.flush()  # as at the end of a process

    with open(output.reader, closefd=False) as file:
        first = [file.readline() for _ in range(1000)]  # of those that waited
        output.handler.flush()
        output.say("y")
        rest = list(iter(file.readline, "y 0\n"))
    written = sum(line.startswith("x") for line in first + rest)
    lost = sum(int(line.split()[-1]) for line in first + rest)
    assert (written < 3000, written + lost) == (True, 3000)


def test_a_full_disk_loses_lines_and_says_how_many(output):
    pipe = os.dup(output.writer)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, output.writer)
    for text in ("a", "b", "c"):
        output.say(text)
    output.handler.flush()
    os.dup2(pipe, output.writer)
    output.say("d")
    output.handler.flush()
    os.close(full)
    os.close(pipe)
    assert os.read(output.reader, 4096) == b"log lines lost 3\nd 0\n"


def test_a_line_that_was_cut_is_no_part_of_the_next(output):
    os.set_blocking(output.writer, False)
    room = fcntl(output.writer, F_SETPIPE_SZ, 4096)
    output.say("x" * 2 * room)
    output.handler.flush()
    assert os.read(output.reader, room) == b"x" * room
    output.say("y")
    output.handler.flush()
    assert os.read(output.reader, room) == b"\nlog lines lost 1\ny 0\n"
