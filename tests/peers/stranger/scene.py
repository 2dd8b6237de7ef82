"""What strangers try on a real service, while somebody watches: neither the picture nor /healthz shows it."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.peers.service import Service
from tests.peers.watcher import Watcher

# The stranger's address; the limits of one address are not the watcher's, at 127.0.0.1.
STRANGER = "127.0.0.66"
ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
STORM_S = 4.0  # longer than a reserve lasts
LEAST_S = 1.5  # that each attack is watched
SHARE_SEEN = 0.9
LONGEST_GAP_S = 2.0
HEALTHZ_MEDIAN_S, HEALTHZ_WORST_S = (
    0.1,
    3.0,
)  # the worst is the machine's as well: these attacks took up to 13 s
MOST_MB = 40  # more of the gateway's memory than before
KEYFRAMES = 'livesr_keyframe_requests_total{stream="demo"}'

ADMIN, VIEWER, PUBLISHER = "admin-of-this-test", "viewer-of-this-test", "publisher-of-this-test"
# Nobody but who is tested asks for key frames: HLS would, were segments shorter than what comes by itself.
SETTINGS = """
[hls]
segment_s = 5.0
[sources]
hosts = ["127.0.0.1"]
[limits]
usable_share = 0
ice_timeout_s = 2.0
client_timeout_s = 2.0
[auth]
"""
TOKENS = ((ADMIN, "admin"), (VIEWER, "view:demo"), (PUBLISHER, "publish:*"))
KEY = "key-of-this-test"
STREAM = {"bitrate_bps": 1_000_000, "keyframe_interval_s": 5.0}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    service: Service  # asked by its admin
    watcher: Watcher
    stranger: httpx.Client  # from another address, without a token
    doors: dict[str, int]  # ports at which streams wait for publishers, by protocol

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """An attack that the watcher must not notice."""
        from_s = time.monotonic()
        yield
        seen = self.watcher.seen(from_s, max(time.monotonic(), from_s + LEAST_S))
        print(f"the watcher saw {seen}")
        assert seen.share >= SHARE_SEEN, seen
        assert seen.longest_gap_s < LONGEST_GAP_S, seen
        assert seen.healthz_median_s < HEALTHZ_MEDIAN_S, seen
        assert seen.healthz_worst_s < HEALTHZ_WORST_S, seen

    def connect(self, sent: bytes, port: int = 0) -> socket.socket:
        """A connection of the stranger's, on which this is sent."""
        port = port or int(self.service.url.rstrip("/").rpartition(":")[2])
        raw = socket.create_connection(("127.0.0.1", port), source_address=(STRANGER, 0))
        raw.sendall(sent)
        return raw

    def peak_mb(self) -> float:
        """The most memory that the gateway has ever held."""
        return peak_kb(self.service.process.pid) / 1024

    def viewers(self) -> int:
        return self.service.show("demo")["viewers"]["whep"]

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", self.service.http.get("/metrics").text, re.M)
        return float(value)


def peak_kb(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
