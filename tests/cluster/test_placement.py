"""Streams on the nodes of a cluster: spread by capacity, refused where there is none, back after a loss."""

import itertools
import socket
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from server.__main__ import main
from server.gateway.placement.nodes import AVOIDED_S
from tests.cluster.conftest import LIGHT, ONE, SOURCE, all_running, cluster, nodes_of, serving, viewing
from tests.peers.service import until


def test_streams_are_spread_by_capacity_and_refused_beyond(tmp_path: Path) -> None:
    with cluster(2, 2) as nodes, serving(tmp_path, nodes) as service, ExitStack() as stack:
        for number in range(4):
            stack.enter_context(service.stream(f"s{number}", SOURCE, **LIGHT))
        all_running(service)
        assert sorted(Counter(nodes_of(service).values()).values()) == [2, 2]
        until(lambda: _full(service), "the nodes are known to be full")
        refused = service.http.post("/api/streams", json={"id": "more", "source": SOURCE, **LIGHT})
        assert refused.status_code == 503
        assert "one more stream takes 1.50 livesr_megapixels, and the freest of 2" in refused.json()["detail"]
        assert refused.headers["Retry-After"]

        nodes.add(2)  # as an autoscaler does, which sees what was asked for

        def taken() -> bool:
            answer = service.http.post("/api/streams", json={"id": "more", "source": SOURCE, **LIGHT})
            return answer.status_code == 201

        until(taken, "there is room")
        service.wait_for("more", "running")


def _full(service) -> bool:
    nodes = service.http.get("/api/nodes").json()
    return all(node["free"]["livesr_megapixels"] < 1.5 for node in nodes)


def test_a_lost_node_costs_its_viewers_some_frames(tmp_path: Path) -> None:
    """Two nodes are lost, one after the other; a standby waits for each of their streams."""
    names = ["s0", "s1", "s2"]
    with cluster(4, 4) as nodes, serving(tmp_path, nodes, standby=4) as service, ExitStack() as stack:
        for name in names:
            stack.enter_context(service.stream(name, SOURCE, **LIGHT))
        all_running(service)
        viewers = stack.enter_context(viewing(service, names, tmp_path))
        took_s: list[float] = []
        for lost in [node for node in nodes.nodes if node.node_id[:8] in str(nodes_of(service))][:2]:
            # Standbys are ready, and the node that was lost before isn't avoided any more.
            time.sleep(10 if not took_s else AVOIDED_S + 5)
            before = nodes_of(service)
            hit = [stream for stream, node in before.items() if node.endswith(lost.node_id[:8])]
            killed_s = time.monotonic()
            nodes.kill(lost)
            for stream in hit:
                until(partial(_is_elsewhere, service, stream, before[stream]), f"{stream} is elsewhere")
                back_s = time.monotonic()
                moves = partial(viewers.count_after, stream, back_s)
                until(lambda moves=moves: moves() > 8, f"the viewer of {stream} sees it move")
                took_s.append(viewers.longest_gap(stream, killed_s, time.monotonic()))
        assert viewers.stay
        print(f"streams of lost nodes show a picture again after {[round(s, 2) for s in took_s]} s")
        assert took_s
        assert statistics.quantiles([*took_s, *took_s], n=20)[-1] <= 3.0


def _is_elsewhere(service, stream: str, lost: str) -> bool:
    return nodes_of(service)[stream] not in (lost, None)


def test_a_drained_node_loses_no_frame(tmp_path: Path) -> None:
    names = ["s0", "s1"]
    with cluster(2, 4) as nodes, serving(tmp_path, nodes) as service, ExitStack() as stack:
        for name in names:
            stack.enter_context(service.stream(name, SOURCE, **LIGHT))
        all_running(service)
        viewers = stack.enter_context(viewing(service, names, tmp_path))
        drained = nodes_of(service)["s0"]
        began_s = time.monotonic()
        assert main(["drain", drained, "--url", service.url]) == 0
        assert drained not in nodes_of(service).values()
        ended_s = time.monotonic()
        for name in names:
            moves = partial(viewers.count_after, name, ended_s)
            until(lambda moves=moves: moves() > 16, f"the viewer of {name} sees it move")
            numbers = [number for number, at_s in viewers.frames(name) if at_s > began_s - 1]
            dropped = service.show(name)["frames"]["dropped"]
            missing = numbers[-1] - numbers[0] + 1 - len(set(numbers))
            print(f"{name}: {len(numbers)} frames, {missing} missing, dropped by the service: {dropped}")
            assert all(a < b for a, b in itertools.pairwise(numbers)), "none twice"
            assert missing <= sum(dropped.values())


def test_thirty_streams(tmp_path: Path) -> None:
    """Over three nodes: placed, listed, removed."""
    with cluster(3, 11) as nodes, serving(tmp_path, nodes) as service:
        began_s = time.monotonic()
        tiny = {**LIGHT, "source_when": "watched", "upscale_when": "watched"}  # the machine has all of them
        for number in range(30):
            wanted = {"id": f"s{number}", "source": SOURCE, **tiny}
            assert service.http.post("/api/streams", json=wanted).status_code == 201
        until(lambda: None not in nodes_of(service).values(), "every stream has a worker", 240)
        placed_s = time.monotonic() - began_s
        spread = Counter(nodes_of(service).values())
        assert sum(spread.values()) == 30
        assert len(spread) == 3
        began_s = time.monotonic()
        listed_s = min(_listing_s(service) for _ in range(5))
        for number in range(30):
            assert service.http.delete(f"/api/streams/s{number}", timeout=60).status_code == 204
        assert service.http.get("/api/streams").json() == []
        removed_s = time.monotonic() - began_s
        until(lambda: _free(service) == 3 * int(11 * ONE), "all room is free again")
        print(
            f"30 streams over {sorted(spread.values())}: placed in {placed_s:.1f} s, listed in "
            f"{1e3 * listed_s:.0f} ms, removed in {removed_s:.1f} s"
        )


def _listing_s(service) -> float:
    began_s = time.monotonic()
    assert len(service.http.get("/api/streams").json()) == 30
    return time.monotonic() - began_s


def _free(service) -> float:
    return sum(node["free"]["livesr_megapixels"] for node in service.http.get("/api/nodes").json())


def test_an_address_that_is_no_cluster_is_said(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as another:  # which never says what it is
        for address in ("127.0.0.1:1", "nonsense", f"127.0.0.1:{another.getsockname()[1]}"):
            assert main(["serve", "--port", "0", "--cluster", address]) == 2
            said = capsys.readouterr().err.splitlines()
            assert said[-1].startswith(f"livesr serve: --cluster={address!r}: no Ray cluster there: ")
