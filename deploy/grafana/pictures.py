"""The pictures in docs/dashboards/: runs the demo with viewers and a Prometheus, and draws the dashboards.

Half way the demo's worker is killed, for the dashboards to show what that looks like.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

from deploy.grafana.build import FOLDER
from deploy.grafana.draw import Prometheus, draw

_PICTURES = Path(__file__).parents[2] / "docs" / "dashboards"
_BOARDS = ("overview", "stream", "capacity")  # the other needs a GPU
_PATIENCE_S = 60.0

_SETTINGS = """
[server]
port = {port}
[webrtc]
host_addresses = ["127.0.0.1"]
[recording]
folder = "{folder}/recordings"
[[streams]]
id = "demo"
source = "demo:"
record = true
[[streams]]
id = "hall"
source = "synthetic:?size=160x90&fps=12"
"""
_CONFIG = """
global: {{scrape_interval: 2s}}
scrape_configs:
  - job_name: livesr
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the dashboards of a run of the demo.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long it runs (default 5)")
    parser.add_argument("--folder", type=Path, default=_PICTURES, help="default: docs/dashboards")
    parser.add_argument("--viewers", type=int, default=3, help="of the demo, by WebRTC (default 3)")
    args = parser.parse_args()
    matplotlib.use("Agg")
    port, prometheus_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder, _running(folder) as run:
        settings, config = Path(folder, "livesr.toml"), Path(folder, "prometheus.yml")
        settings.write_text(_SETTINGS.format(port=port, folder=folder))
        config.write_text(_CONFIG.format(port=port))
        run(sys.executable, "-m", "server", "serve", "--config", str(settings), "--log-level", "warning")
        listens = f"--web.listen-address=127.0.0.1:{prometheus_port}"
        run("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", listens)
        service = f"http://127.0.0.1:{port}"
        _until_running(service)
        for stream, count in (("demo", args.viewers), ("hall", 1)):
            words = ("--stream", stream, "--count", str(count), "--duration", str(60 * args.minutes + 60))
            run(sys.executable, "-m", "loadtest", "viewers", "--url", f"{service}/", *words)
        threading.Thread(target=_play, args=(f"{service}/hls/demo/index.m3u8",), daemon=True).start()
        start_s = time.time()
        time.sleep(30 * args.minutes)
        os.kill(_get(f"{service}/api/streams/demo")["worker"]["pid"], signal.SIGKILL)
        time.sleep(30 * args.minutes)
        told = Prometheus(f"http://127.0.0.1:{prometheus_port}", start_s=start_s, end_s=time.time())
        variables = {"__rate_interval": "10s", "instance": ".*", "stream": "demo"}
        args.folder.mkdir(parents=True, exist_ok=True)
        for name in _BOARDS:
            draw(FOLDER / f"{name}.json", told, variables, args.folder / f"{name}.png")


@contextmanager
def _running(folder: str) -> Iterator[Any]:
    """What starts programs; these end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> None:
        with Path(folder, f"{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    try:
        yield run
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def _until_running(service: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            if _get(f"{service}/api/streams/demo")["state"] == "running":
                return
        except OSError:
            pass  # it has yet to listen
        time.sleep(0.2)
    raise SystemExit(f"the demo doesn't run within {_PATIENCE_S:g} s")


def _play(playlist: str) -> None:
    """Asks for HLS as a player does."""
    while True:
        try:
            urllib.request.urlopen(playlist, timeout=10).close()  # noqa: S310
        except OSError:
            return  # the service has ended
        time.sleep(2)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
