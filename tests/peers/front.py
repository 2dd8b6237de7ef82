"""The service behind a proxy, as curl finds it by HTTP/2."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.service import Service, until

SOURCE = "synthetic:?size=160x90&fps=12"
NAME = "video.example.com"
SERVER = f'trusted_proxies = ["127.0.0.1"]\nhosts = ["{NAME}"]'  # the service's settings
HINT = re.compile(r'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="([^"]+)"')
PART = re.compile(r'#EXT-X-PART:.*URI="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    version: str
    headers: str  # lower case
    body: bytes
    took_s: float

    @property
    def text(self) -> str:
        return self.body.decode()


class Front:
    """The service as the proxy shows it."""

    def __init__(self, service: Service, port: int, curl: str, folder: Path) -> None:
        self.service = service
        self.url = f"https://127.0.0.1:{port}/"
        self._curl = curl
        self.folder = folder

    def command(self, path: str, *options: str) -> list[str]:
        return [self._curl, "-sk", "--http2", "--max-time", "30", *options, self.url + path]

    def get(self, path: str, *options: str) -> Answer:
        told = "%{stderr}%{http_code} %{http_version} %{time_total}"
        done = subprocess.run(
            self.command(path, "-D", "-", "-w", told, *options), capture_output=True, timeout=60
        )
        assert done.returncode == 0, done
        status, version, took_s = done.stderr.decode().split()
        headers, _, body = done.stdout.partition(b"\r\n\r\n")
        return Answer(int(status), version, headers.decode().lower(), body, float(took_s))

    def fetched(self) -> float:
        """How many HLS files the service has given away."""
        metrics = self.service.http.get("/metrics").text
        return sum(
            float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("livesr_hls_req")
        )


@contextmanager
def shown(front: Front, process: "subprocess.Popen[bytes]", log: Path) -> Iterator[Front]:
    """Has a stream that runs, once the proxy answers, whose process ends with it."""

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        return subprocess.run(front.command("readyz"), capture_output=True, timeout=60).returncode == 0

    try:
        with front.service.stream("live", SOURCE):
            front.service.wait_for("live", "running")
            until(answers, "the proxy answers")
            yield front
    finally:
        process.terminate()
        process.wait(15)


def end_of(text: str) -> tuple[int, int]:
    """The sequence number of the segment that grows, and how many parts it has."""
    sequence = int(re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", text)[1])
    segments = [line for line in text.splitlines() if line and not line.startswith("#")]
    parts = PART.findall(text.rpartition("\n#EXTINF")[2])
    return sequence + len(segments), len(parts)
