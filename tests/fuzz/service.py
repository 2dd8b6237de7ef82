"""The service that is fuzzed: asked by its admin, with room for much fuzzing, and one stream that stays."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.service import Service, running, until

TOKEN, STREAM = "token-of-the-fuzzer", "demo"
TASKS = "tasks of the event loop: "  # what the gateway says when it is sent SIGUSR1
SETTINGS = f"""
[hls]
segment_s = 1.0
[sources]
hosts = ["127.0.0.1"]
[limits]
usable_share = 0
max_streams = 6
max_pending_per_address = 1000
max_viewers_per_address = 1000
failed_logins_per_min = 1000000
hls_requests_per_s = 1000000
ice_timeout_s = 1.0
client_timeout_s = 2.0
[[auth.tokens]]
name = "fuzzer"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
scopes = ["admin"]
"""


@contextmanager
def fuzzed() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), SETTINGS, TOKEN, base="", module="tests.fuzz.gateway") as service,
        service.stream(STREAM, "synthetic:?size=80x48&fps=5"),
    ):
        service.wait_for(STREAM, "running")
        until(lambda: service.http.get(f"/hls/{STREAM}/media.m3u8").status_code == 200, "there is a segment")
        yield service
