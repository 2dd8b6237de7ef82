"""Every panel of every dashboard shows something of a real run, by a real Prometheus."""

import asyncio
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from engine.machine import Gpu
from server.gateway.figures.metrics import Metrics
from server.gateway.placement import SlotUse
from tests.conftest import ROOT
from tests.peers.service import FOR_PEERS, running, until
from tests.peers.test_prometheus import watching
from tests.ports import free_port

FILES = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
Spawn = Callable[..., "subprocess.Popen[bytes]"]

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: livesr
    static_configs: [{{targets: ["{service}"]}}]
  - job_name: dcgm
    static_configs: [{{targets: ["{gpu}"]}}]
"""
# It is recorded, and pushed to where nobody listens.
STREAMS = """
[recording]
folder = "{folder}"
[[streams]]
id = "shown"
source = "synthetic:?size=160x90&fps=12"
record = true
push = ["rtmp://127.0.0.1:{port}/live/key"]
"""
# A page as dcgm-exporter writes it, with the counters of its default set that the dashboard asks for.
DCGM = {
    "DCGM_FI_DEV_SM_CLOCK": 1980,
    "DCGM_FI_DEV_GPU_TEMP": 41,
    "DCGM_FI_DEV_POWER_USAGE": 152.3,
    "DCGM_FI_DEV_GPU_UTIL": 37,
    "DCGM_FI_DEV_MEM_COPY_UTIL": 12,
    "DCGM_FI_DEV_ENC_UTIL": 20,
    "DCGM_FI_DEV_DEC_UTIL": 31,
    "DCGM_FI_DEV_XID_ERRORS": 0,
    "DCGM_FI_DEV_FB_FREE": 138_000,
    "DCGM_FI_DEV_FB_USED": 5_600,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.114,
}


@pytest.fixture
def gpu() -> Iterator[str]:
    """Where the figures of a machine with a GPU are: dcgm-exporter's, and ours of its slots."""
    labels = 'gpu="0",UUID="GPU-4a2c",device="nvidia0",modelName="NVIDIA L4",Hostname="node-1"'
    page = "".join(f"# TYPE {name} gauge\n{name}{{{labels}}} {value}\n" for name, value in DCGM.items())
    metrics = Metrics()
    card = Gpu(
        index=0, uuid="GPU-4a2c", name="NVIDIA L4", memory_bytes=0, compute_capability="8.9", driver="580"
    )
    use = SlotUse(gpu=card, used=2, slots=5)
    metrics.watch_gpus(lambda: [use])
    body = page.encode() + asyncio.run(metrics.exposition())[0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def questions() -> dict[str, str]:
    """The query of each panel, with its variables filled in."""
    found = {}
    for path in FILES:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "5s")
                for name, value in (("instance", ".*"), ("stream", "shown"), ("gpu", ".*")):
                    query = query.replace(f"${name}", value)
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = query
    return found


def test_every_panel_shows_something(
    program: Callable[[str, str], str], ffmpeg: str, spawn: Spawn, tmp_path: Path, gpu: str
) -> None:
    base = FOR_PEERS.replace("usable_share = 0 ", "usable_share = 0.9 ")
    streams = STREAMS.format(folder=tmp_path / "recordings", port=free_port())
    with running(tmp_path, streams, base=base) as service:
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(service=service.url.removeprefix("http://").rstrip("/"), gpu=gpu))
        query = watching(config, program, spawn)
        service.wait_for("shown", "running")
        viewers = ("loadtest", "viewers", "--count", "1", "--duration", "600", "--stream", "shown")
        spawn(sys.executable, "-m", *viewers, "--url", service.url)
        until(lambda: httpx.get(f"{service.url}hls/shown/index.m3u8").status_code == 200, "there is HLS")
        spawn(ffmpeg, "-v", "error", "-i", f"{service.url}hls/shown/index.m3u8", "-f", "null", "-")

        def answered(question: str) -> bool:
            values = [float(series["value"][1]) for series in query(question)]  # type: ignore[index]
            return any(map(math.isfinite, values))

        left = questions()
        assert len(left) > 60

        def all_answered() -> bool:
            httpx.get(service.url, headers={"Host": "stranger.example"})  # which is refused
            for panel, question in list(left.items()):
                if answered(question):
                    del left[panel]
            return not left

        try:
            until(all_answered, "every panel has a sample", 60)
        except AssertionError as exc:
            raise AssertionError(f"nothing is shown by {left}\n{service.log()}") from exc
