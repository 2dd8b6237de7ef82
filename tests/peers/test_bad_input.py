"""Bad input has a name, and stops nobody else's stream."""

import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.service import Service, until
from tests.ports import free_port

GOOD = "synthetic:?size=160x90&fps=12"


@pytest.fixture
def good(service: Service) -> Iterator[str]:
    with service.stream("good", GOOD) as name:
        service.wait_for(name, "running")
        yield name
        service.wait_for_frames(name)


def test_an_unreachable_source_is_tried_again(service: Service, good: str) -> None:
    with service.stream("camera", f"rtsp://user:secret@127.0.0.1:{free_port()}/stream"):
        seen = service.wait_for("camera", "reconnecting")
        assert "Connection refused" in seen["reason"]
        assert "secret" not in str(seen) + service.log()
        until(lambda: service.show("camera")["source_reconnects"] >= 2, "it is tried again")
        service.wait_for_frames(good)


@pytest.mark.parametrize("content", [b"no video at all\n" * 100, b"", random.Random(1).randbytes(50_000)])
def test_a_file_that_is_no_video_fails_with_its_name(
    service: Service, good: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with service.stream("notes", str(path)):
        seen = service.wait_for("notes", "failed")
        assert str(path) in seen["reason"]
        answer = service.http.post("/whep/notes", content="v=0", headers={"content-type": "application/sdp"})
        assert answer.status_code in (400, 409)
        service.wait_for_frames(good)


def test_garbage_in_the_transport_stream_is_survived(
    service: Service, ffmpeg: str, good: str, spawn: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    port = free_port()
    with service.stream("udp", f"udp://127.0.0.1:{port}"):
        picture = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=12", "-c:v", "libx264", "-g", "12")
        spawn(
            ffmpeg,
            "-re",
            *picture,
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-f",
            "mpegts",
            f"udp://127.0.0.1:{port}",
        )
        service.wait_for("udp", "running")
        noise = random.Random(2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                # Some of it looks like transport packets: right sync bytes around nonsense.
                junk = b"".join(b"\x47" + noise.randbytes(187) for _ in range(7))
                sender.sendto(noise.choice([junk, noise.randbytes(1316)]), ("127.0.0.1", port))
        service.wait_for_frames("udp", 24)
        service.wait_for_frames(good)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gopher://example/", "'gopher' must be one of"),
        ("rtsp://", "must name a host"),
        ("synthetic:?size=100000x2", "width=100000 must be even, from 80 to 3840"),
        ("synthetic:?size=3840x2160", None),
    ],
)
def test_a_source_that_can_never_be_is_refused_or_fails(
    service: Service, source: str, words: str | None
) -> None:
    answer = service.http.post("/api/streams", json={"id": "never", "source": source})
    if words is not None:
        assert answer.status_code == 422
        assert words in answer.json()["detail"]
        return
    try:
        assert "3840" in service.wait_for("never", "failed")["reason"]
    finally:
        service.http.delete("/api/streams/never")
