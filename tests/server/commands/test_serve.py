"""`livesr serve` as an operator starts and stops it."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

TIMEOUT_S = 90.0


def start(*words: str, log: Path) -> "subprocess.Popen[str]":
    with log.open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "server", "serve", *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "livesr.toml"
    path.write_text("[server]\nport = 0\n[defaults]\npreset = 'ultrafast'\n[limits]\nmax_width = 640\n")
    return path


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_with_its_workers(settings, tmp_path, how):
    log = tmp_path / "log"
    source = "synthetic:?size=160x120&fps=25"
    process = start("--config", str(settings), source, log=log)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"livesr: open (http://127\.0\.0\.1:\d+/)\n", line)
        assert found, (line, log.read_text())
        (stream,) = httpx.get(found[1] + "api/streams").json()
        assert stream["source"] == source
        assert httpx.get(found[1]).status_code == 200
        (worker,) = children(process.pid)
        asked_s = time.monotonic()
        process.send_signal(how)
        assert process.wait(TIMEOUT_S) in (0, -how)
        assert time.monotonic() - asked_s < 10
        assert not alive(worker)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.toml"], "none.toml: no such settings file"),
        (["--port", "TAKEN"], "server.port=TAKEN: can't listen there: Address already in use"),
        (["--host", "no.such.host.invalid"], "server.host='no.such.host.invalid'"),
        (["gopher://h/1"], "'gopher' must be one of rtsp"),
        (["--port", "70000"], "server.port=70000"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_status_2(words, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "server", "serve", *(w.replace("TAKEN", port) for w in words)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    assert done.returncode == 2
    assert message.replace("TAKEN", port) in done.stderr
    assert done.stderr.startswith("livesr serve: ")
    assert done.stderr.count("\n") == 1


def test_a_gateway_killed_outright_leaves_no_worker(settings, tmp_path):
    process = start("--config", str(settings), "synthetic:?size=160x120&fps=25", log=tmp_path / "log")
    try:
        process.stdout.readline()
        (worker,) = children(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    deadline = time.monotonic() + TIMEOUT_S
    while alive(worker):
        assert time.monotonic() < deadline, "the worker still runs"
        time.sleep(0.05)
