"""Several gateways on one cluster: any answers for all, and one that is killed is no loss for long."""

import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.conftest import LIGHT, SOURCE, cluster, serving, viewing
from tests.peers.service import until


def test_a_stream_outlives_its_gateway(tmp_path: Path) -> None:
    """Made at one gateway, listed and watched through another, and there when the first is killed."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with cluster(2, 4) as nodes, ExitStack() as stack:
        a, b = (stack.enter_context(serving(folder, nodes, standby=1)) for folder in folders)
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
