"""compose.yaml by Docker Compose itself, and the files that it mounts by the programs of its services."""

import asyncio
import base64
import hmac
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioice import stun, turn

from server.settings.read import load
from tests.conftest import ROOT, missing_peer
from tests.deploy.check.conftest import Run
from tests.peers.service import until
from tests.peers.stun import answers
from tests.ports import free_port

COMPOSE = ["-f", "deploy/compose.yaml"]
GPU = [*COMPOSE, "-f", "deploy/compose.gpu.yaml"]


def program(name: str, package: str) -> str:
    return shutil.which(name, path="/usr/bin:/usr/sbin") or missing_peer(name, f"apt-get install {package}")


def services(tool: Run, files: list[str]) -> dict:
    return json.loads(tool("docker-compose", *files, "config", "--format", "json"))["services"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service "setup" makes, by its script."""
    folder = tmp_path_factory.mktemp("shared")
    command = [sys.executable, ROOT / "deploy/compose/setup.py", folder, "localhost"]
    subprocess.run(command, check=True, timeout=60)
    return folder


@pytest.mark.parametrize("files", [COMPOSE, GPU], ids=["cpu", "gpu"])
def test_compose_takes_it_and_what_it_mounts_is_there(tool: Run, files: list[str]) -> None:
    found = services(tool, files)
    assert {"livesr", "coturn", "prometheus", "alertmanager", "grafana", "nginx"} <= set(found)
    binds = [v["source"] for s in found.values() for v in s.get("volumes", ()) if v["type"] == "bind"]
    assert binds
    assert [path for path in binds if not Path(path).exists()] == []
    for name, service in found.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name


def test_the_cache_is_told_where_the_service_is(tool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVESR_SERVICE", "10.0.0.5:8080")
    monkeypatch.setenv("LIVESR_TOKEN", "north")
    cache = services(tool, ["-f", "deploy/compose.cache.yaml"])["hls-cache"]
    (template,) = cache["volumes"]
    text = Path(template["source"]).read_text()
    wanted = set(re.findall(r"\$\{(\w+)\}", text))
    assert wanted == {"LIVESR_SERVICE", "LIVESR_TOKEN"} <= set(cache["environment"])
    assert all(re.match(cache["environment"]["NGINX_ENVSUBST_FILTER"], name) for name in wanted)
    assert cache["read_only"]


def test_with_gpus_it_is_the_other_image_and_all_of_them(tool: Run) -> None:
    service = services(tool, GPU)["livesr"]
    assert service["build"]["target"] == "gpu"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert {"gpu", "video"} <= set(device["capabilities"])


def test_the_service_reads_its_settings_and_asks_for_a_token(
    tool: Run, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = services(tool, COMPOSE)["livesr"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value.replace("/run/shared", str(shared)))
    settings = load(ROOT / "deploy/compose/livesr.toml")
    assert settings.server.hosts == ("localhost",)
    (turn,) = settings.webrtc.ice_servers
    assert turn.secret == (shared / "turn.secret").read_text()
    # Behind nginx everyone comes from this machine.
    assert "--first-token" in service["command"]
    grace_s = int(re.fullmatch(r"(\d+)s", service["stop_grace_period"])[1])
    assert grace_s > settings.server.drain_s


def test_setup_leaves_a_certificate_and_a_secret_alone(shared: Path) -> None:
    kept = {path.name: path.read_bytes() for path in shared.iterdir()}
    subprocess.run(
        [sys.executable, ROOT / "deploy/compose/setup.py", shared, "localhost"], check=True, timeout=60
    )
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in shared.iterdir())


def test_nginx_takes_its_configuration_with_that_certificate(shared: Path, tmp_path: Path) -> None:
    text = (ROOT / "deploy/nginx/livesr.conf").read_text()
    text = text.replace("/etc/ssl/livesr", str(shared)).replace("/var/cache/nginx", str(tmp_path))
    user = "user root;\n" if tmp_path.owner() == "root" else ""
    config = tmp_path / "nginx.conf"
    config.write_text(f"{user}pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{text}\n}}\n")
    done = subprocess.run(
        [program("nginx", "nginx"), "-t", "-e", tmp_path / "log", "-c", config],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_alertmanager_takes_its_configuration() -> None:
    amtool = program("amtool", "prometheus-alertmanager")
    file = ROOT / "deploy/alertmanager/alertmanager.yml"
    done = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def coturn(shared: Path, tmp_path: Path) -> Iterator[int]:
    """The port of one that has started with the configuration."""
    port = free_port()
    command = [
        *(program("turnserver", "coturn"), "-c", shared / "turnserver.conf", "--listening-port", str(port)),
        *("--pidfile", tmp_path / "pid", "--userdb", tmp_path / "db", "--listening-ip", "127.0.0.1"),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)

    def listens() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return answers(port)

    try:
        until(listens, "coturn answers")
        yield port
    finally:
        process.terminate()
        process.wait(30)


async def test_coturn_relays_to_this_machine_and_to_nobody_else(shared: Path, coturn: int) -> None:
    secret = (shared / "turn.secret").read_bytes()
    name = f"{int(time.time()) + 3600}:viewer"
    password = base64.b64encode(hmac.digest(secret, name.encode(), "sha1")).decode()
    own = re.search(r"allowed-peer-ip=([\d.]+)", (shared / "turnserver.conf").read_text())[1]
    transport, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol, server_addr=("127.0.0.1", coturn), username=name, password=password
    )
    client = vars(transport)["_TurnTransport__inner_protocol"]
    await client.channel_bind(0x4000, (own, 40000))
    with pytest.raises(stun.TransactionFailed) as refused:
        await client.channel_bind(0x4001, ("198.51.100.1", 40000))
    assert refused.value.response.attributes["ERROR-CODE"][0] == 403
    transport.close()
