"""The `livesr` command itself: its version, its words, what it says of wrong ones, and how far a job is."""

import os
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

from engine import progress
from server.__main__ import COMMANDS, main, whole_parser


def test_it_tells_its_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"livesr {version('livesr')}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strems"], "livesr: no command 'strems'; is it 'streams'? (`livesr --help` shows what there is)\n"),
        (
            ["streams"],
            "livesr streams: the following arguments are required: ACTION (`livesr streams --help`",
        ),
        (["serve", "--prot"], "unrecognized arguments: --prot"),
    ],
)
def test_a_wrong_word_is_one_line_with_a_hint(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    err = capsys.readouterr().err
    assert said.removesuffix("\n") in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_completed(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in COMMANDS:
        assert name in script
    assert "--token-file" in script
    if shell == "bash":
        ask = "COMP_WORDS=(livesr streams w); COMP_CWORD=2; _shtab_livesr livesr w streams; echo $COMPREPLY"
        done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
        assert done.stdout == "watch\n"


def test_every_command_has_its_arguments():
    parser = whole_parser()
    for words in (["serve", "--port", "0"], ["streams", "list"], ["evaluate", "--model", "x"], ["bench"]):
        assert parser.parse_args(words).command == words[0]


def test_who_reads_no_further_is_told_nothing(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["completion", "bash"]) == 128 + signal.SIGPIPE
    monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_a_job_is_interrupted_without_a_traceback(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("server.commands.completion.run", interrupted)
    assert main(["completion", "bash"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_how_far_a_job_is_and_how_long_it_takes_yet(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    shown = progress.Progress("frames", "clip")
    for done in range(1, 41):
        shown.show(done, 40, seconds=done)
    shown.end()
    lines = [line for line in capsys.readouterr().err.replace("\r\x1b[K", "\n").splitlines() if line]
    assert len(lines) == (40 if terminal else 4)
    assert "25%  clip: 10 frames, 1.0 a second, 00:00:30 left" in lines[9 if terminal else 0]


def test_a_job_of_unknown_length_says_how_long_it_has_taken(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_MOVES_S", 0.01)
    said = ""
    with progress.working("building x", about_s=3600.0):
        while "left" not in said:
            said += capsys.readouterr().err
    assert "building x: 00:00:00, 00:59:59 left" in said
