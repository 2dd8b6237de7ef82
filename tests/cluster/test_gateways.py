"""Several gateways on one cluster: any answers for all, and one that is killed is no loss for long."""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path

import av

from tests.cluster.conftest import LIGHT, SOURCE, cluster, serving, viewing
from tests.peers.service import Service, until


def test_a_stream_outlives_its_gateway(tmp_path: Path) -> None:
    """Made at one gateway, listed and watched through another, and there when the first is killed."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    redirect = 'streams_elsewhere = "redirect"'
    with cluster(2, 4) as nodes, ExitStack() as stack:
        a, b = (stack.enter_context(serving(folder, nodes, standby=1, server=redirect)) for folder in folders)
        wanted = {"id": "s0", "source": SOURCE, **LIGHT}
        assert a.http.post("/api/streams", json=wanted).status_code == 201
        assert b.http.post("/api/streams", json=wanted).status_code == 409
        a.wait_for("s0", "running", 120)
        assert [stream["state"] for stream in b.http.get("/api/streams").json()] == ["running"]
        sent_on = b.http.post("/whep/s0")
        assert (sent_on.status_code, sent_on.headers["Location"]) == (307, f"{a.url}whep/s0")
        with viewing(b, ["s0"], tmp_path):
            killed_s = time.monotonic()
            a.process.kill()
            until(lambda: b.http.get("/api/streams/s0").status_code == 200, "b is its home")
            home_s = time.monotonic() - killed_s
        b.wait_for("s0", "running", 120)
        running_s = time.monotonic() - killed_s
        with viewing(b, ["s0"], tmp_path):
            print(f"a killed gateway's stream: home elsewhere in {home_s:.2f} s, runs in {running_s:.2f} s")
        assert home_s <= 3.0
        assert running_s <= 10.0

        # The record's process is lost: it is there again, with all that it knew.
        nodes.kill_actor("Homes")
        again = {"id": "s1", "source": SOURCE, **LIGHT}
        until(lambda: b.http.post("/api/streams", json=again).status_code == 201, "the record is there again")
        assert {stream["id"] for stream in b.http.get("/api/streams").json()} == {"s0", "s1"}
        assert b.http.post("/api/streams", json=wanted).status_code == 409


def test_a_stream_is_watched_at_any_gateway_whichever_is_its_home(tmp_path: Path) -> None:
    """By WebRTC and HLS, with one worker and one subscription; and goes on when its home is killed."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with cluster(2, 4) as nodes, ExitStack() as stack:
        a, b = (stack.enter_context(serving(folder, nodes, standby=1)) for folder in folders)
        wanted = {"id": "s0", "source": SOURCE, **LIGHT}
        assert a.http.post("/api/streams", json=wanted).status_code == 201
        a.wait_for("s0", "running", 120)
        with viewing(b, ["s0"], tmp_path) as viewers:
            url = _media_playlist(b, "s0")
            until(lambda: b.http.get(url, timeout=20).text.count("#EXTINF") >= 2, "segments at b", 120)
            assert _played(f"{b.url}{url}") >= 8
            assert a.show("s0")["worker"]["pid"] == b.show("s0")["worker"]["pid"], "b says what a does"
            assert 'livesr_subscribers{stream="s0"} 1.0' in a.http.get("/metrics").text
            assert 'livesr_viewers{protocol="whep",stream="s0"} 1.0' in b.http.get("/metrics").text
            assert 'livesr_frames_total{stream="s0"}' not in b.http.get("/metrics").text
            killed_s = time.monotonic()
            a.process.kill()
            until(lambda: viewers.count_after("s0", killed_s + 1.0) >= 8, "the viewer sees it again", 120)
            frames = viewers.frames("s0")
            gap_s = viewers.longest_gap("s0", killed_s, frames[-1][1])
            print(f"a killed home under a viewer of another gateway: no picture for {gap_s:.2f} s")
            assert viewers.stay
            assert gap_s <= 15.0
            assert b.http.get("/api/streams?here=true").json()[0]["viewers"]["whep"] == 1
            text = b.http.get(url, timeout=20).text
            assert "#EXT-X-DISCONTINUITY\n" in text, "nor does the HLS player begin anew"


def _media_playlist(service: Service, stream: str) -> str:
    top = until(lambda: _text(service, f"hls/{stream}/index.m3u8"), "a playlist", 120)
    return f"hls/{stream}/" + next(line for line in top.splitlines() if line.endswith(".m3u8"))


def _text(service: Service, path: str) -> str:
    answer = service.http.get(path, timeout=20)
    return answer.text if answer.status_code == 200 else ""


def _played(url: str) -> int:
    """Pictures that FFmpeg makes of what is listed there."""
    with av.open(url, options={"live_start_index": "0"}) as container:
        return sum(1 for _ in itertools.islice(container.decode(video=0), 8))
