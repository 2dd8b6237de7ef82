"""`livesr serve` as an operator starts and stops it."""

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from server.__main__ import main
from server.commands.listen import listen
from server.commands.serve import stream_name
from tests.peers.service import until
from tests.ports import free_port

TIMEOUT_S = 90.0


def start(*words: str, log: Path) -> "subprocess.Popen[str]":
    """A service without a process in reserve, as none is needed and each takes its time to start."""
    with log.open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "server", "serve", *words],
            env=os.environ | {"LIVESR_WORKERS__STANDBY": "0"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or while it was read
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
    process = start("--config", str(settings), "--log-format", "json", source, log=log)
    try:
        line = process.stdout.readline()
        assert line.startswith("{"), (line, log.read_text())
        page = json.loads(line)["page"]
        (stream,) = httpx.get(page + "api/streams").json()
        assert stream["source"] == source
        assert httpx.get(page).status_code == 200
        deadline_s = time.monotonic() + TIMEOUT_S
        while '"server.worker"' not in log.read_text():
            assert time.monotonic() < deadline_s, "the worker logs as the gateway does"
            time.sleep(0.05)
        workers = children(process.pid)  # what measures the machine may be one
        assert workers
        asked_s = time.monotonic()
        process.send_signal(how)
        assert process.wait(TIMEOUT_S) == 0
        assert time.monotonic() - asked_s < 10
        assert not any(map(alive, workers))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in log.read_text()
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"stream created", "service ends"} <= {line["event"] for line in said}
    assert {line["stream"] for line in said if line["logger"] == "server.worker"} == {stream["id"]}


@pytest.fixture
def refused_here(monkeypatch, capsys):
    """As `refused`, for what is said before the service listens: in this process."""
    monkeypatch.setattr("server.commands.serve.log_to_stderr", lambda *_: None)
    monkeypatch.setattr("server.commands.serve._open_as_many_as_may_be", lambda: None)

    def refused_here(*words: str) -> str:
        assert main(["serve", *words]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return refused_here


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none.toml"], "none.toml: no such settings file"),
        (["--host", "no.such.host.invalid"], "server.host='no.such.host.invalid'"),
        (["gopher://h/1"], "'gopher' must be one of rtsp"),
        (["--port", "70000"], "server.port=70000"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_status_2(words, message, refused_here):
    said = refused_here(*words)
    assert message in said
    assert said.startswith("livesr serve: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://admin:S3cretPw@127.0.0.1:9", "127-0-0-1-9"),
        ("rtsp://admin:S3cretPw@camera.example/", "camera-example"),
        ("rtsp://admin:S3c/ret?Pw@camera.example/", "live"),
        ("rtsp://admin:S3cretPw@camera.example/yard/main.sdp?t=S3", "main"),
        ("rtmp://0.0.0.0:1935/live/LONGKEY123?listen=1", "live"),
        ("rtmp://0.0.0.0:1935/LONGKEY123?listen=1", "0-0-0-0-1935"),
        ("srt://[::1]:9000?passphrase=it's a S3cret", "1-9000"),
        ("/srv/films/a film.mp4", "a-film"),
        ("synthetic:?size=160x120", "synthetic"),
        ("v4l2:/dev/video0?size=640x480", "video0"),
        ("demo:", "demo"),
        ("-", "live"),
    ],
)
def test_the_id_of_the_one_stream_is_of_its_source_and_tells_no_secret(source, name):
    assert stream_name(source) == name


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port))
    assert said == (
        f"livesr serve: server.host='127.0.0.1', server.port={port}: can't listen there: "
        "Address already in use\n"
    )


def test_where_it_cannot_start_nothing_stays_open_and_no_token_is_kept(settings, refused_here, monkeypatch):
    """The file of streams is opened, and then there is no such cluster."""
    kept = settings.with_name("first-token")
    opened = []
    monkeypatch.setattr("server.commands.serve.listen", lambda at: opened.append(listen(at)) or opened[0])
    words = ("--first-token", str(kept), "--cluster", "127.0.0.1:1")
    said = refused_here("--config", str(settings), *words)
    assert said.startswith("livesr serve: --cluster='127.0.0.1:1': ")
    assert said.count("\n") == 1
    assert opened[0].fileno() == -1
    assert not kept.exists()


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


@contextlib.contextmanager
def unheard(config: Path, *words: str, output: int | None, closed: Sequence[int] = ()) -> Iterator[str]:
    """The address of a service whose standard streams can't be written."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", "--config", str(config), "--port", str(port), *words],
        env=os.environ | {"LIVESR_WORKERS__STANDBY": "0"},
        stdout=output,
        stderr=output,
        preexec_fn=lambda: [os.close(descriptor) for descriptor in closed],
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: process.poll() is not None or _answers(url), "it listens")
        assert process.poll() is None
        yield url
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(url + "healthz").status_code == 200
    return False


def test_streams_go_on_where_its_standard_streams_are_closed(settings):
    with unheard(settings, "synthetic:?size=160x120", output=None, closed=(0, 1, 2)) as url:
        (stream,) = httpx.get(url + "api/streams").json()
        until(
            lambda: httpx.get(f"{url}api/streams/{stream['id']}").json()["state"] == "idle",
            "its worker is there",
        )


def test_a_token_that_a_full_disk_kept_from_being_told_is_made_anew(settings):
    kept = settings.with_name("first-token")
    with (
        open("/dev/full", "wb") as full,
        unheard(settings, "--first-token", str(kept), output=full.fileno()) as url,
    ):
        assert httpx.get(url + "api/streams").status_code == 401
    assert not kept.exists()


def test_it_opens_as_many_files_as_it_may(settings, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        process = start("--config", str(settings), log=tmp_path / "log")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        assert process.stdout.readline()
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_answers_on_a_kept_connection_wait_for_nothing(settings):
    with serving(settings) as (url, _), httpx.Client(base_url=url) as client:
        took_s = []
        for _ in range(20):
            started_s = time.monotonic()
            client.get("/healthz").raise_for_status()
            took_s.append(time.monotonic() - started_s)
        # Headers and body are two writes: held back until the first was acknowledged, it was 44 ms each.
        assert min(took_s) < 0.02


SENTENCE = "would let everyone in: write the lines that `livesr token admin` prints into the settings, or"


def refused(*words: str) -> str:
    """What is said on stderr by a service that doesn't start."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "serve", *words], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_lets_nobody_in_from_elsewhere_without_auth(host, refused_here):
    said = refused_here("--host", host)
    assert said.startswith(f"livesr serve: server.host='{host}': {SENTENCE}")
    assert said.count("\n") == 1


@contextlib.contextmanager
def serving(config: Path, *words: str) -> Iterator[tuple[str, Path]]:
    """The address that a service prints, and its log."""
    log = config.with_name("log")
    process = start("--config", str(config), *words, log=log)
    try:
        line = process.stdout.readline()
        assert line.startswith("livesr: open "), (line, log.read_text())
        yield line.removeprefix("livesr: open ").strip(), log
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        process.stdout.close()


def test_it_opens_to_the_world_where_that_is_written(settings):
    settings.write_text("[server]\nport = 0\nhost = '0.0.0.0'\nopen_to_the_world = true\n")
    with serving(settings) as (url, _):
        assert httpx.get(url + "api/streams").status_code == 200


def test_it_opens_to_those_whom_auth_names(settings):
    token = "a-token-for-this-test"
    settings.write_text(
        "[server]\nport = 0\nhost = '0.0.0.0'\n[[auth.tokens]]\nname = 'me'\nscopes = ['admin']\n"
        f"sha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n"
    )
    with serving(settings, "--first-token", str(settings.with_name("unused"))) as (url, _):
        assert httpx.get(url + "api/streams").status_code == 401
        assert httpx.get(url + "api/streams", headers={"Authorization": f"Bearer {token}"}).json() == []
    assert not settings.with_name("unused").exists(), "the settings say who is let in"


def test_a_first_token_is_told_once_and_goes_on_letting_in(settings):
    kept = settings.with_name("first-token")
    words = ("--host", "0.0.0.0", "--first-token", str(kept))
    with serving(settings, *words) as (url, log):
        page, _, token = url.partition("#token=")
        assert len(token) > 40
        assert token not in kept.read_text()
        assert kept.stat().st_mode & 0o777 == 0o600
        assert httpx.get(page + "api/streams").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(page + "api/streams", headers=headers).status_code == 200
        assert token not in log.read_text()
    with serving(settings, *words) as (url, log):
        assert "token" not in url
        assert httpx.get(url + "api/streams", headers=headers).status_code == 200
    kept.write_text("rubbish\n")
    said = refused("--config", str(settings), *words)
    assert str(kept) in said
    assert "SHA-256" in said
    elsewhere = str(settings / "not-a-folder")
    assert "can't be kept there" in refused("--port", "0", "--first-token", elsewhere)


@pytest.mark.parametrize("trusted", [True, False])
def test_only_a_trusted_proxy_says_whom_a_request_is_from(settings, trusted):
    proxies = ["127.0.0.1"] if trusted else []
    settings.write_text(
        f"[server]\nport = 0\ntrusted_proxies = {proxies}\n[limits]\nhls_requests_per_s = 0.1\n"
    )
    with serving(settings) as (url, _):
        statuses = [
            httpx.get(url + "hls/none/x", headers={"X-Forwarded-For": f"192.0.2.{viewer}"}).status_code
            for viewer in range(3)
        ]
    assert statuses == [404] * 3 if trusted else 429 in statuses


def test_metrics_have_a_listener_of_their_own(settings, refused_here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings.write_text(
        f"[server]\nport = 0\nmetrics_listener = '127.0.0.1:{port}'\n[[auth.tokens]]\nname = 'me'\n"
        f"scopes = ['admin']\nsha256 = '{'0' * 64}'\n"
    )
    with serving(settings) as (url, _):
        assert httpx.get(url + "metrics").status_code == 401
        scraped = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert "process_cpu_seconds_total" in scraped.text
        for path in ("", "api/streams", "healthz", "web/app.js"):
            assert httpx.get(f"http://127.0.0.1:{port}/{path}").status_code == 404
    assert "metrics_listener='9101'" in refused_here("--config", str(_write(settings, "9101")))
    said = refused("--config", str(_write(settings, "192.0.2.1:9101")), "--port", "0")
    assert "server.metrics_listener='192.0.2.1:9101': can't listen there" in said


def _write(settings: Path, listener: str) -> Path:
    settings.write_text(f"[server]\nmetrics_listener = '{listener}'\n")
    return settings
