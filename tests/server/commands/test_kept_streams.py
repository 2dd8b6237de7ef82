"""Streams of the API over restarts of a real service."""

import re
import signal
from pathlib import Path

import httpx
import pytest

from server.gateway.streams.kept import KeptStreams
from tests.server.commands.test_serve import TIMEOUT_S, refused, serving, start

CAMERA = {"id": "cam", "source": "rtsp://user:secret@camera.example:1/x", "lanes": 2}
TEST = {"id": "test", "source": "synthetic:?size=160x90"}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "livesr.toml"
    path.write_text("[server]\nport = 0\n[defaults]\npreset = 'ultrafast'\n")
    return path


def streams(url: str) -> dict[str, dict]:
    return {stream["id"]: stream for stream in httpx.get(url + "api/streams").json()}


def kept(settings: Path) -> list[str]:
    """What the next start would find."""
    file = KeptStreams(settings.with_suffix(".db"))
    file.close()
    return sorted(stream.id for stream in file.at_start)


def test_streams_of_the_api_survive_a_restart_and_a_kill(settings):
    with serving(settings) as (url, _):
        for body in (CAMERA, TEST, {**TEST, "id": "gone"}):
            assert httpx.post(url + "api/streams", json=body).status_code == 201
        assert httpx.delete(url + "api/streams/gone").status_code == 204
        before = streams(url)
    database = settings.with_name("livesr.db")
    assert database.stat().st_mode & 0o777 == 0o600

    process = start("--config", str(settings), log=settings.with_name("log"))
    try:
        url = process.stdout.readline().removeprefix("livesr: open ").strip()
        after = streams(url)
        assert httpx.post(url + "api/streams", json={**TEST, "id": "late"}).status_code == 201
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
        process.stdout.close()
    assert sorted(after) == ["cam", "test"]
    for name, stream in after.items():
        assert stream["created"] == before[name]["created"]
        assert stream["started"] > before[name]["started"]
        assert stream["source"] == before[name]["source"]
    with serving(settings) as (url, log):
        assert sorted(streams(url)) == ["cam", "late", "test"]
        assert httpx.delete(url + "api/streams/late").status_code == 204
    assert "secret" not in log.read_text()
    assert kept(settings) == ["cam", "test"]


def test_they_stay_a_strangers_streams(settings):
    allowed = "[sources]\nschemes = ['synthetic', 'rtsp']\nhosts = ['camera.example']\n"
    plain = settings.read_text()
    settings.write_text(plain + allowed)
    with serving(settings) as (url, _):
        for body in (CAMERA, TEST):
            assert httpx.post(url + "api/streams", json=body).status_code == 201
    settings.write_text(plain + "[sources]\nschemes = ['synthetic']\n")
    with serving(settings) as (url, log):
        assert sorted(streams(url)) == ["test"]
        said = log.read_text()
        assert re.search(r"stream not allowed .* stream=cam .*'rtsp://\*\*\*@camera\.example:1/x'", said)
        assert "secret" not in said
    settings.write_text(plain + allowed)
    with serving(settings) as (url, _):
        assert sorted(streams(url)) == ["cam", "test"], "it was kept for a time when it may run"
    settings.write_text(plain + "[sources]\nschemes = ['synthetic']\n")
    with serving(settings) as (url, _):
        assert httpx.delete(url + "api/streams/cam").status_code == 204
        assert httpx.delete(url + "api/streams/cam").status_code == 404
    assert kept(settings) == ["test"]


def test_a_damaged_file_is_said_and_left_as_it_is(settings):
    database = settings.with_name("livesr.db")
    database.write_bytes(b"rubbish" * 1000)
    said = refused("--config", str(settings))
    assert said.startswith("livesr serve: ")
    assert f"{database}: the file with the streams (server.state) is damaged" in said
    assert said.count("\n") == 1
    assert database.read_bytes() == b"rubbish" * 1000


def test_where_the_file_is(settings, tmp_path):
    elsewhere = tmp_path / "elsewhere.db"
    settings.write_text(f"[server]\nport = 0\nstate = '{elsewhere}'\n")
    with serving(settings) as (url, _):
        assert httpx.post(url + "api/streams", json=TEST).status_code == 201
        assert f"{elsewhere}: streams can't be kept there: another service" in refused(
            "--config", str(settings)
        )
    assert elsewhere.exists()
    assert not settings.with_name("livesr.db").exists()
    settings.write_text("[server]\nport = 0\nstate = '/no/such/folder/x.db'\n")
    assert "server.state='/no/such/folder/x.db': " in refused("--config", str(settings))
    settings.write_text("[server]\nport = 0\nstate = ''\n")
    with serving(settings) as (url, log):
        assert httpx.post(url + "api/streams", json=TEST).status_code == 201
        assert re.search(r"streams of the API end with the service +.*key=server\.state", log.read_text())
    assert not settings.with_name("livesr.db").exists()
