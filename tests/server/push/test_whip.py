"""A push by WHIP and what its server answers."""

import asyncio
import http.server
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import pytest
from av.container import InputContainer

from server.push.whip import WhipSink
from server.wire.messages import AwaitPublisher
from tests.server.clips import write_clip
from tests.server.gateway.scripted_gateway import loopback, until  # noqa: F401
from tests.server.gateway.test_whip import pieces, waiting

Seen = list[tuple[str, str | None]]


@pytest.fixture
def server() -> Iterator[tuple[str, Seen]]:
    """Sends on from /old to /new, which somebody else publishes to, and from /away to another host."""
    seen: Seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/no-http":
                self.wfile.write(b"220 here is a mail server\r\n")
                return
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(409 if self.path == "/new" else 307)
            here = self.headers["Host"]
            there = {"/old": "/new", "/away": f"http://{here.replace('127.0.0.1', 'localhost')}/new"}
            self.send_header("Location", there.get(self.path, self.path))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"whip://t%2Fken@127.0.0.1:{httpd.server_address[1]}", seen
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "answer", "requests"),
    [
        ("/old", "the server answers 409 Conflict", [("/old", True), ("/new", True)]),
        ("/away", "the server answers 409 Conflict", [("/away", True), ("/new", False)]),
        ("/round", "redirects too often", [("/round", True)] * 4),
        ("/no-http", "the server's answer is no HTTP", []),
    ],
)
def test_a_refusal_is_named_and_no_other_host_gets_the_token(
    server: tuple[str, Seen], tmp_path: Path, path: str, answer: str, requests: list[tuple[str, bool]]
) -> None:
    where, seen = server
    clip = write_clip(tmp_path / "c.mp4", width=96, height=64, frames=2, audio="aac")
    with av.open(clip) as source, pytest.raises(OSError, match=answer):
        WhipSink(f"{where}{path}", cast(InputContainer, source), on_need_keyframe=lambda: None)
    assert seen == [(path, "Bearer t/ken" if told else None) for path, told in requests]


@pytest.mark.parametrize(
    ("own", "asked", "told"),
    [
        ("whips://t@host/live", "http://host/new", False),
        ("whips://t@host/live", "https://host/new", True),
        ("whip://t@host/live", "https://host/new", True),
    ],
)
def test_no_redirect_has_the_token_sent_in_clear(
    own: str, asked: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    class Opener:
        def open(self, request: urllib.request.Request, timeout: float) -> None:
            seen.append(request.has_header("Authorization"))
            raise OSError("refused")

    def post(sink: WhipSink, offer: bytes) -> str:
        sink._request("POST", asked, offer)
        return ""

    monkeypatch.setattr("server.push.whip._opener", Opener())
    monkeypatch.setattr(WhipSink, "_post", post)
    source = SimpleNamespace(streams=SimpleNamespace(video=[None], audio=[]))
    monkeypatch.setattr("server.push.whip.BitStreamFilterContext", lambda *_: None)
    with pytest.raises(OSError, match="refused"):
        WhipSink(own, cast(InputContainer, source), on_need_keyframe=lambda: None)
    assert seen == [told]


async def test_a_stranger_who_sends_too_much_at_once_ends_no_push(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", width=96, height=64, frames=2)
    async with waiting() as served:
        await until(lambda: served.placement.workers, "a worker")
        served.worker.say(AwaitPublisher(opening=1))
        with av.open(clip) as source:
            address = f"{served.base.replace('http', 'whip')}/whip/demo"
            sink = await asyncio.to_thread(
                WhipSink, address, cast(InputContainer, source), on_need_keyframe=lambda: None
            )
            try:
                stranger, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
                )
                (port,) = re.findall(r"candidate:.* (\d+) typ host", sink._peer.localDescription.sdp)
                for kind in (b"\x80\x60", b"\x80\xc8"):
                    stranger.sendto(kind + bytes(1600), ("127.0.0.1", int(port)))
                stranger.close()
                packets = [packet for packet in source.demux() if packet.dts is not None]
                for packet in packets:
                    sink.send(packet)
                await until(lambda: pieces(served.worker), "it is published", 10)
                assert sink._state == "connected"
            finally:
                await asyncio.to_thread(sink.__exit__)
