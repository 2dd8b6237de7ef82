"""A push's process, whatever it says."""

import sys
import tracemalloc

import pytest

from server.gateway.mp4.fragments import Fragment
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


_WAITS = "import time; {}; time.sleep(600)"
_SOME = Fragment(init=b"init", data=bytes(1 << 16), starts=0, ends=3600, independent=True, follows=True)


@pytest.mark.parametrize(
    ("says", "limit", "reason"),
    [
        ("pass", "_CONNECTS_S", "no connection within 0.5 s"),
        ("print('connected', flush=True)", "_TAKES_S", "it has taken nothing for 0.5 s"),
    ],
)
async def test_who_neither_answers_nor_takes_anything_is_given_up_and_called_again(
    monkeypatch, says, limit, reason
):
    monkeypatch.setattr("server.gateway.push.pusher._PROCESS", (sys.executable, "-c", _WAITS.format(says)))
    monkeypatch.setattr(f"server.gateway.push.pusher.{limit}", 0.5)
    pusher = Pusher("demo", "udp://127.0.0.1:9", on_change=lambda _: None, on_need_keyframe=lambda: None)

    def given_up() -> bool:
        pusher.fragment(_SOME)
        return pusher.restarts > 0

    await until(given_up, "it is given up")
    assert pusher.reason == reason
    await pusher.close()
