"""Caddy before the service, by the configuration that ships."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.peers.front import HINT, NAME, SERVER, Front, end_of, shown
from tests.peers.service import Service, running
from tests.ports import free_port


def configure(folder: Path, service: Service, port: int) -> Path:
    """The shipped configuration, with the places of a test in it, and a certificate of Caddy's own."""
    text = (ROOT / "deploy/caddy/Caddyfile").read_text()
    for here, there in {
        f"{NAME} {{": f"https://127.0.0.1:{port} {{\n\ttls internal",
        "127.0.0.1:8080": service.url.removeprefix("http://").rstrip("/"),
    }.items():
        assert here in text
        text = text.replace(here, there)
    path = folder / "Caddyfile"
    path.write_text("{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n" + text)
    return path


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str, str], str]) -> Iterator[Front]:
    caddy, curl = program("caddy", "caddy"), program("curl", "curl")
    folder, port = tmp_path_factory.mktemp("caddy"), free_port()
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (
        running(folder, server=SERVER) as service,
        (folder / "caddy.log").open("wb") as log,
    ):
        command = [caddy, "run", "--config", configure(folder, service, port), "--adapter", "caddyfile"]
        process = subprocess.Popen(command, env={**os.environ, **homes}, stderr=log)
        with shown(Front(service, port, curl, folder), process, folder / "caddy.log") as front:
            yield front


def test_what_ships_is_valid(program: Callable[[str, str], str]) -> None:
    command = [program("caddy", "caddy"), "validate", "--adapter", "caddyfile", "--config"]
    done = subprocess.run([*command, ROOT / "deploy/caddy/Caddyfile"], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert b"not formatted" not in done.stderr


def test_low_latency_hls_comes_over_http_2(front: Front) -> None:
    first = front.get("hls/live/media.m3u8")
    assert (first.status, first.version) == (200, "2")
    msn, part = end_of(first.text)
    reloaded = front.get(f"hls/live/media.m3u8?_HLS_msn={msn}&_HLS_part={part}")
    assert end_of(reloaded.text) > (msn, part)
    hinted = front.get("hls/live/" + HINT.search(reloaded.text)[1])
    assert (hinted.status, hinted.body[4:8]) == (200, b"moof")


def test_events_come_at_once_and_bodies_are_bounded(front: Front) -> None:
    listener = subprocess.Popen(front.command("api/events", "-N"), stdout=subprocess.PIPE)
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"event: state\n"
    finally:
        listener.kill()
        listener.communicate()
    (front.folder / "large").write_bytes(b" " * 100_000)
    headers = ("-H", "Content-Type: application/json")
    answer = front.get("api/streams", "--data-binary", f"@{front.folder / 'large'}", *headers)
    assert answer.status == 413


def test_names_are_those_of_the_settings(front: Front) -> None:
    assert front.get("api/streams").status == 200
