"""A push's process, whatever it says."""

import os
import sys
import tracemalloc

import pytest

from server.gateway.mp4.fragments import Fragment
from server.gateway.push.pusher import Pusher
from tests.server.commands.test_serve import children
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_worker import ScriptedPlacement

_TALKS = "import sys; [sys.stderr.write('x' * 99_999 + chr(10)) for _ in range(200)]; sys.exit('the end')"


def pushed() -> Pusher:
    return Pusher(
        "demo", "udp://127.0.0.1:9", "there", on_change=lambda _: None, on_need_keyframe=lambda: None
    )


async def test_what_its_process_says_is_not_kept_but_for_the_last_line(monkeypatch):
    monkeypatch.setattr("server.gateway.push.pusher._PROCESS", (sys.executable, "-c", _TALKS))
    tracemalloc.start()
    try:
        pusher = pushed()
        await until(lambda: pusher.restarts, "its process has ended")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pusher.reason == "the end"
    assert most_bytes < 5 << 20, "of twenty megabytes"
    await pusher.close()


_ONE_OF_TWO = (
    "import sys; fed = sys.stdin.buffer;"
    "b'dead' in fed.readline() or print('connected', flush=True); fed.read()"
)


async def test_two_pushes_to_one_server_are_told_apart_but_not_by_their_keys(monkeypatch):
    monkeypatch.setattr("server.gateway.push.pusher._PROCESS", (sys.executable, "-c", _ONE_OF_TWO))
    server, others = "rtmp://127.0.0.1/live/", set(children(os.getpid()))
    async with gateway(ScriptedPlacement(), streams=(), push={"allowed": [server]}) as served:

        async def pushes(**connected: float) -> bool:
            """By what follows the server in the label."""
            metrics = await served.metrics()
            seen = {name.partition("***")[2]: value for name, value in metrics.items() if "_push{" in name}
            return seen == connected

        both = {"push": [f"{server}dead", f"{server}live"]}
        await served.http.post("/api/streams", json={"id": "demo", "source": "synthetic:"} | both)
        await until(lambda: pushes(**{'"}': 0, ' (2)"}': 1}), "one is down", 20)
        await served.http.patch("/api/streams/demo", json={"push": [f"{server}live"]})
        await until(lambda: pushes(**{' (2)"}': 1}), "the other goes on, with its name", 20)
        (push,) = (await served.stream())["push"]
        assert (push["target"], push["connected"]) == ("rtmp://127.0.0.1/*** (2)", True)
        await served.http.patch("/api/streams/demo", json={"push": []})
        await until(lambda: set(children(os.getpid())) <= others, "their processes have ended")


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
    pusher = pushed()

    def given_up() -> bool:
        pusher.fragment(_SOME)
        return pusher.restarts > 0

    await until(given_up, "it is given up")
    assert pusher.reason == reason
    await pusher.close()
