"""Strangers at the doors of publishers."""

import select
import socket
from contextlib import ExitStack

from tests.peers.service import until
from tests.peers.stranger.scene import KEY, Scene

DOORS = ("rtmp", "rtsp")


def announce(path: str, port: int) -> bytes:
    sdp = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    head = f"ANNOUNCE rtsp://127.0.0.1:{port}/{path} RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n"
    return f"{head}Content-Length: {len(sdp)}\r\n\r\n".encode() + sdp


def test_keys_are_guessed_and_doors_kicked(scene: Scene) -> None:
    port = scene.doors["rtsp"]
    guesses = [f"other/{KEY}", "live/", "live", "", f"live/{KEY[:-1]}", f"live/{KEY}x", "live/../live/x"]
    guesses += [f"live/{number}" for number in range(40)]
    with scene.unnoticed():
        for path in guesses:
            with scene.connect(announce(path, port), port) as guessing:
                answer = guessing.recv(4096)
            assert not answer.startswith(b"RTSP/1.0 200"), path
        # Over the rate of an address not even the right one helps it.
        with scene.connect(announce(f"live/{KEY}", port), port) as guessing:
            assert not guessing.recv(4096).startswith(b"RTSP/1.0 200")
        for rubbish in (bytes(4000), b"\x03" + bytes(1536) * 2 + b"\xff" * 4000, b"GET / HTTP/1.1\r\n\r\n"):
            for door in scene.doors.values():
                scene.connect(rubbish, door).close()
        with ExitStack() as opened:  # and say nothing
            silent = [
                opened.enter_context(scene.connect(b"", door))
                for door in scene.doors.values()
                for _ in range(50)
            ]
            until(lambda: closed(silent), "those that say nothing are hung up on")
    for protocol in scene.doors:
        assert scene.service.show(protocol)["state"] == "reconnecting"
    assert KEY not in scene.service.log()


def closed(connections: list[socket.socket]) -> bool:
    """Whether the other side has ended each of them."""
    readable, _, _ = select.select(connections, [], [], 0)
    return len(readable) == len(connections)
