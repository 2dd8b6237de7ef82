"""A push's process, whatever it says."""

import sys
import tracemalloc

from server.gateway.push.pusher import Pusher
from tests.server.gateway.scripted_gateway import until

_TALKS = "import sys; [sys.stderr.write('x' * 99_999 + chr(10)) for _ in range(200)]; sys.exit('the end')"


async def test_what_its_process_says_is_not_kept_but_for_the_last_line(monkeypatch):
    monkeypatch.setattr("server.gateway.push.pusher._PROCESS", (sys.executable, "-c", _TALKS))
    tracemalloc.start()
    try:
        pusher = Pusher("demo", "udp://127.0.0.1:9", on_change=lambda _: None, on_need_keyframe=lambda: None)
        await until(lambda: pusher.restarts, "its process has ended")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pusher.reason == "the end"
    assert most_bytes < 5 << 20, "of twenty megabytes"
    await pusher.close()
