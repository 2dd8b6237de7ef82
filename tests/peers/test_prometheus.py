"""Prometheus scrapes /metrics for real, and promtool finds nothing to blame in it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.peers.service import Service, free_port, until

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: livesr
    static_configs: [{{targets: ["{target}"]}}]
"""


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
    port = free_port()
    spawn(
        program("prometheus", "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    def query(expression: str) -> list[dict[str, object]]:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, timeout=10
            )
        except httpx.ConnectError:
            return []
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

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
            *("decode", "queue", "upscale", "encode", "publish")
        }
        frames = query('livesr_frames_total{stream="scraped"}')
        assert float(frames[0]["value"][1]) > 0  # type: ignore[index]
