"""What a pod of the cluster does before it ends, against gateways that say what there is to move."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import ROOT

HERE, NEIGHBOUR = "10.0.0.2-5f1c0a9e", "10.0.0.20-77b01d3c"


@contextmanager
def gateway(asked: list[str]) -> Iterator[int]:
    """Its port: a stream is on this pod, another on its neighbour; `asked` gets what is POSTed."""
    left = {HERE: ["entrance"], NEIGHBOUR: ["yard"]}

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say([{"name": name, "streams": streams} for name, streams in left.items()])

        def do_POST(self) -> None:
            assert self.headers["Authorization"] == "Bearer secret"
            asked.append(self.path)
            if self.path == "/api/streams/entrance/move":
                left[HERE].clear()
                self._say({"lossless": True})
            else:
                self._say({"streams": left[self.path.split("/")[3]]})

        def _say(self, what: object) -> None:
            body = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def leave(gateways: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    token = folder / "token"
    token.write_text("secret\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [
        sys.executable,
        str(ROOT / "deploy/helm/livesr/files/leave.py"),
        gateways,
        str(folder / "token"),
        "20",
    ]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "POD_IP": "10.0.0.2"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_its_streams_move_and_its_neighbours_stay(tmp_path: Path) -> None:
    asked: list[str] = []
    with gateway(asked) as port:
        done = leave(f"127.0.0.1:{port}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "entrance: moved, no frame lost" in done.stdout
    assert set(asked) == {f"/api/nodes/{HERE}/drain", "/api/streams/entrance/move"}


def test_without_a_gateway_nothing_holds_it_up(tmp_path: Path) -> None:
    for gateways in ("gateways.invalid:8080", "127.0.0.1:1"):
        assert leave(gateways, tmp_path).returncode == 0
