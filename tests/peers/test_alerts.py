"""A source goes away and comes back: Prometheus and Alertmanager as they are deployed tell of both."""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.peers.service import Service, until
from tests.peers.test_publishers import encoder, waiting
from tests.ports import free_port

DEPLOY = ROOT / "deploy"
Spawn = Callable[..., "subprocess.Popen[bytes]"]


class Hook:
    """Who is told: a webhook, and what it has heard, as (alert, status, runbook)."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    if alert["labels"].get("stream") == "alerting":
                        name, url = alert["labels"]["alertname"], alert["annotations"]["runbook_url"]
                        hook.heard.append((name, alert["status"], url))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def alerting(
    service: Service,
    hook: Hook,
    program: Callable[[str, str], str],
    spawn: Spawn,
    tmp_path: Path,
) -> str:
    """What is deployed watches the service, with less patience; the address of its Alertmanager."""
    prometheus, alertmanager = free_port(), free_port()
    for name in ("alerts.yml", "rules.yml", "prometheus.yml"):
        text = (DEPLOY / "prometheus" / name).read_text()
        text = re.sub(r"for: \w+", "for: 1s", text.replace("interval: 5s", "interval: 1s"))
        text = text.replace("127.0.0.1:9464", service.url.removeprefix("http://").rstrip("/"))
        (tmp_path / name).write_text(text.replace("127.0.0.1:9093", f"127.0.0.1:{alertmanager}"))
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    text = re.sub("^    #(?! )", "    ", text, flags=re.MULTILINE).replace("    #  - url", "      - url")
    text = text.replace("http://127.0.0.1:9095/", hook.url)
    text = text.replace("group_wait: 10s", "group_wait: 0s").replace(
        "group_interval: 1m", "group_interval: 1s"
    )
    (tmp_path / "alertmanager.yml").write_text(text)
    spawn(
        program("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{alertmanager}",
        "--cluster.listen-address=",
    )
    spawn(
        program("prometheus", "prometheus"),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    )
    return f"http://127.0.0.1:{alertmanager}/"


def test_a_source_that_is_killed_is_told_of_and_so_is_its_return(
    service: Service, ffmpeg: str, spawn: Spawn, hook: Hook, alerting: str
) -> None:
    def known() -> set[str]:
        """What Alertmanager shows of the stream."""
        try:
            alerts = httpx.get(f"{alerting}api/v2/alerts", timeout=10).json()
        except httpx.ConnectError:
            return set()
        return {a["labels"]["alertname"] for a in alerts if a["labels"].get("stream") == "alerting"}

    runbook = "docs/runbook.md#livesrsourcelost"
    with waiting(service, "alerting", "rtmp", free_port(), "live/key") as where:
        publisher = spawn(*encoder(ffmpeg, where))
        service.wait_for("alerting", "running")
        until(lambda: "LivesrSourceLost" not in known(), "nothing is wrong")
        hook.heard.clear()
        publisher.kill()
        until(lambda: ("LivesrSourceLost", "firing", runbook) in hook.heard, "the killed source is told of")
        assert "LivesrSourceLost" in known()
        spawn(*encoder(ffmpeg, where))
        until(lambda: ("LivesrSourceLost", "resolved", runbook) in hook.heard, "its return is told of")
