"""HLS and HTTP as live sources."""

import functools
import http.server
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.server.clips import write_clip
from tests.server.worker.live_ingest import assert_plays


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_hls_is_waited_for_and_played_at_its_own_pace(ingest, publish, web):
    folder, address = web
    source = ingest(f"{address}/live.m3u8")
    source.until(lambda s: s.lost)
    assert "404" in source.lost[0].reason
    publish("-f", "hls", "-hls_time", "1", "-hls_flags", "delete_segments", str(folder / "live.m3u8"))
    source.until(lambda s: len(s.pictures) >= 60)
    assert_plays(source)
    # Segments come at once; pictures must not.
    given = [picture.demuxed_ns / 1e9 for picture in source.pictures[-50:]]
    assert max(b - a for a, b in pairwise(given)) < 0.6
    assert given[-1] - given[0] > 1.5
    arrivals = [picture.arrival_ns / 1e9 for picture in source.pictures[-50:]]
    assert max(b - a for a, b in pairwise(arrivals)) > 0.4
    assert max(b - a for a, b in zip(arrivals, given, strict=True)) > 0.4


def test_progressive_http_starts_again_at_its_end(ingest, web):
    folder, address = web
    write_clip(folder / "short.mp4", width=160, height=96, frames=20, audio="aac")
    source = ingest(f"{address}/short.mp4?token=secret")
    source.until(lambda s: len(s.pictures) >= 30)
    assert source.lost[0].reason == f"{address}/short.mp4?***: the stream ended"


def test_the_server_is_left_once_the_source_has_ended(ingest, tmp_path):
    clip = write_clip(tmp_path / "c.ts", width=160, height=96, frames=50).read_bytes()
    left = threading.Event()

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(clip)
                    time.sleep(0.1)
            except OSError:
                left.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            source = ingest(f"http://127.0.0.1:{server.server_port}/live.ts")
            source.until(lambda s: s.pictures)
            source.end()
            assert left.wait(20)
        finally:
            server.shutdown()


def test_a_web_page_is_no_stream(ingest, web):
    folder, address = web
    (folder / "index.m3u8").write_text("<html>not a playlist</html>\n" * 50)
    source = ingest(f"{address}/index.m3u8")
    source.until(lambda s: s.lost)
    assert "Invalid data" in source.lost[0].reason


def write_playlist(path: Path, segment: str) -> None:
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{segment}\n#EXT-X-ENDLIST\n")


def test_a_playlist_can_not_make_us_read_local_files(ingest, web, tmp_path_factory):
    folder, address = web
    clip = write_clip(tmp_path_factory.mktemp("private") / "c.ts", width=160, height=96)
    (folder / clip.name).write_bytes(clip.read_bytes())
    write_playlist(folder / "good.m3u8", clip.name)
    write_playlist(folder / "evil.m3u8", f"file://{clip}")
    good, evil = ingest(f"{address}/good.m3u8"), ingest(f"{address}/evil.m3u8")
    good.until(lambda s: s.pictures)  # the same clip, and nothing else is wrong with such a playlist
    evil.until(lambda s: len(s.lost) >= 2 or s.pictures)
    assert not evil.pictures


def test_a_description_can_not_make_us_listen_for_rtp(ingest, publish, web):
    """FFmpeg by itself would open any port that an SDP file from the web names."""
    folder, address = web
    port = free_port()
    rtp = ["-an", "-f", "rtp", "-sdp_file", str(folder / "evil.sdp")]
    publish(*rtp, f"rtp://127.0.0.1:{port}")
    source = ingest(f"{address}/evil.sdp")
    # Once it may have been read while ffmpeg wrote it.
    source.until(lambda s: s.pictures or sum("404" not in lost.reason for lost in s.lost) >= 2)
    assert not source.pictures
