"""The real service as a process of its own, and what a client of its API does with it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.conftest import ROOT
from tests.ports import free_port

T = TypeVar("T")

# A file loads its engine and a peer connects in a second or two; a busy machine takes its time.
TIMEOUT_S = 60.0

SETTINGS = """
[server]
port = {port}
{server}
[webrtc]
host_addresses = ["127.0.0.1"]
{webrtc}
[defaults]
preset = "ultrafast"
upscale_when = "always"
ladder = []  # likewise
keyframe_interval_s = 1.0
engine_patience_s = 60.0  # of a busy machine: what the peers are to see is the network's picture
[workers]
standby = {standby}
streams_per_worker = {streams_per_worker}
"""
# The other programs' servers, files and ports are all on this machine, and their players need not wait.
FOR_PEERS = f"""
[limits]
usable_share = 0  # the tests share the machine
[hls]
segment_s = 1.0
[sources]
schemes = ["rtsp", "rtmp", "http", "udp", "srt", "whip", "file", "synthetic", "demo"]
hosts = ["127.0.0.0/8"]
folders = ["/"]
listen_ports = {list(range(1024, 65536))}
"""


def until(condition: Callable[[], T], what: str, timeout_s: float = TIMEOUT_S) -> T:
    """Waits for what `condition` returns to be true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


class Service:
    """`url` ends with a slash."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log
        self.http = httpx.Client(base_url=url, timeout=10)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def show(self, stream: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/streams/{stream}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextmanager
    def stream(self, name: str, source: str, **options: Any) -> Iterator[str]:
        """A stream that is there for as long as the block."""
        answer = self.http.post("/api/streams", json={"id": name, "source": source, **options})
        assert answer.status_code == 201, answer.text
        try:
            yield name
        finally:
            self.http.delete(f"/api/streams/{name}")

    def wait_for(self, stream: str, state: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The stream once it is in that state."""
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            seen.update(self.show(stream))
            return seen["state"] == state

        try:
            until(arrived, f"{stream} is {state}", timeout_s)
        except AssertionError as exc:
            raise AssertionError(
                f"{exc}; it is {seen['state']}: {seen['reason']}\n{self.log()[-3000:]}"
            ) from None
        return seen

    def wait_for_frames(self, stream: str, count: int = 10) -> None:
        """That many more frames go out."""
        start = self.show(stream)["frames"]["total"]
        until(lambda: self.show(stream)["frames"]["total"] >= start + count, f"{count} frames of {stream}")

    def workers(self) -> list[int]:
        """Process ids of the gateway's workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"--fd" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def running(
    folder: Path,
    settings: str = "",
    token: str | None = None,
    *,
    base: str = FOR_PEERS,
    server: str = "",
    webrtc: str = "",
    module: str = "server",
    port: int = 0,
    standby: int = 0,
    streams_per_worker: int = 1,
    options: Sequence[str] = (),
) -> Iterator[Service]:
    """Starts a service without streams on that port, 0 being a free one; its process ends with the block.

    `settings` are further tables, `token` what it is asked with, `base` the tables that suit most
    peers, `server` and `webrtc` further lines of those, and `module` what is started in the
    place of `livesr`; `standby`: how many workers wait, `streams_per_worker`
    how many streams share one; `options` are further words of the command.
    """
    port = port or free_port()
    config, log = folder / "livesr.toml", folder / "livesr.log"
    config.write_text(
        SETTINGS.format(
            port=port,
            server=server,
            webrtc=webrtc,
            standby=standby,
            streams_per_worker=streams_per_worker,
        )
        + base
        + settings
    )
    command = [sys.executable, "-m", module, "serve", "--config", str(config), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    service = Service(process, f"http://127.0.0.1:{port}/", log)
    if token is not None:
        service.http.headers["Authorization"] = f"Bearer {token}"
    try:
        until(lambda: _ready(service), "the service is ready")
        yield service
    finally:
        service.http.close()
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(service: Service) -> bool:
    assert service.process.poll() is None, f"the service ended:\n{service.log()}"
    try:
        return service.http.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False
