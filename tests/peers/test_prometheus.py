"""Prometheus scrapes /metrics for real, and promtool finds nothing to blame in it."""

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.peers.service import Service, running, until
from tests.peers.test_auth import ADMIN, AUTH
from tests.ports import free_port

DEPLOY = ROOT / "deploy"

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: livesr
    static_configs: [{{targets: ["{target}"]}}]
"""


Query = Callable[[str], list[dict[str, object]]]


def watching(
    config: Path, program: Callable[[str, str], str], spawn: Callable[..., "subprocess.Popen[bytes]"]
) -> Query:
    """A Prometheus of that configuration; returns what asks it."""
    port = free_port()
    spawn(
        program("prometheus", "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    def query(expression: str) -> list[dict[str, object]]:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/api/v1/query",
                params={"query": expression},
                timeout=10,
                verify=False,  # reading the certificates takes longer than the answer
            )
        except httpx.ConnectError:
            return []
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    return query


def test_promtool_accepts_the_metrics(service: Service, program: Callable[[str, str], str]) -> None:
    promtool = program("promtool", "prometheus")
    with service.stream("lint", "synthetic:?size=160x90&fps=12"):
        service.wait_for("lint", "running")
        text = service.http.get("/metrics").text
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_prometheus_knows_the_latency_of_frames(
    service: Service,
    program: Callable[[str, str], str],
    spawn: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(target=service.url.removeprefix("http://").rstrip("/")))
    query = watching(config, program, spawn)

    with service.stream("scraped", "synthetic:?size=160x90&fps=12"):
        service.wait_for("scraped", "running")
        quantile = (
            'histogram_quantile(0.99, rate(livesr_frame_latency_seconds_bucket{stream="scraped"}[10s]))'
        )

        def latency_s() -> float:
            found = query(quantile)
            return float(found[0]["value"][1]) if found else 0.0  # type: ignore[index]

        assert 0 < until(lambda: latency_s() > 0 and latency_s(), "a latency is known") < 10
        stages = query('livesr_frame_stage_duration_seconds_count{stream="scraped"}')
        assert {series["metric"]["stage"] for series in stages} == {  # type: ignore[index]
            *("demux", "decode", "queue", "upscale", "encode", "publish")
        }
        frames = query('livesr_frames_total{stream="scraped"}')
        assert float(frames[0]["value"][1]) > 0  # type: ignore[index]
        until(lambda: query('livesr_source_frames_total{stream="scraped"} > 12'), "pictures are counted")


@pytest.mark.parametrize("how", ["listener", "token", "no token"])
def test_what_is_deployed_scrapes_a_service_that_asks_for_tokens(
    program: Callable[[str, str], str],
    spawn: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
    how: str,
) -> None:
    there = f"127.0.0.1:{free_port()}"
    listener = tomllib.loads((DEPLOY / "compose/livesr.toml").read_text())["server"]["metrics_listener"]
    for name in ("alerts.yml", "rules.yml"):
        (tmp_path / name).write_bytes((DEPLOY / "prometheus" / name).read_bytes())
    (tmp_path / "token").write_text(ADMIN + "\n")
    config = tmp_path / "prometheus.yml"
    text = (DEPLOY / "prometheus/prometheus.yml").read_text().replace("5s", "1s")
    assert listener in text
    with running(tmp_path, AUTH, ADMIN, server=f'metrics_listener = "{there}"') as service:
        if how != "listener":
            there = service.url.removeprefix("http://").rstrip("/")
        if how == "token":
            text = text.replace("#authorization", "authorization").replace("#  cred", "  cred")
            text = text.replace("/etc/prometheus/token", str(tmp_path / "token"))
        config.write_text(text.replace(listener, there))
        check = [program("promtool", "prometheus"), "check", "config", str(config)]
        done = subprocess.run(check, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        query = watching(config, program, spawn)
        found = until(lambda: query('up{job="livesr"}'), "Prometheus has scraped")
        assert found[0]["value"][1] == ("0" if how == "no token" else "1")  # type: ignore[index]
        assert bool(query("livesr_viewers") or query("process_cpu_seconds_total")) == (how != "no token")
