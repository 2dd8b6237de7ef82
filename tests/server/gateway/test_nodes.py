"""Machines of a cluster: what is free, who is kept off which, and how one is emptied."""

import asyncio
import sys

import pytest

from server.gateway.placement import NodeUse
from server.gateway.placement.nodes import AVOIDED_S, GPU, MEGAPIXELS, Node, Nodes
from tests.conftest import ROOT
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_worker import ScriptedPlacement


def node(name: str, has: float, free: float, **more: float) -> Node:
    return Node(id=f"id-{name}", name=name, has={MEGAPIXELS: has, **more}, free={MEGAPIXELS: free})


def test_what_is_missing_is_named():
    nodes = Nodes([node("head", 0, 0)])
    assert "no node of the cluster that may be used has livesr_megapixels" in nodes.shortage(MEGAPIXELS, 1, 0)
    nodes.look([node("head", 0, 0), node("a", 10, 2), node("b", 10, 4)])
    assert nodes.shortage(MEGAPIXELS, 4, 0) == ""
    assert nodes.shortage(MEGAPIXELS, 4.5, 0) == (
        "no node of the cluster has room: one more stream takes 4.50 livesr_megapixels, and the freest of 2, "
        "b, has 4.00 of 10.00 left"
    )
    assert "no node of the cluster has room" in nodes.shortage(MEGAPIXELS, 4, 3), "others wait for it"


def test_a_node_that_failed_is_left_alone_for_a_time_and_a_drained_one_until_told():
    now = [0.0]
    nodes = Nodes([node("a", 10, 9), node("b", 10, 3)], lambda: now[0])
    nodes.avoid("id-a")
    assert nodes.kept_off() == {"id-a"}
    assert "the freest of 1, b," in nodes.shortage(MEGAPIXELS, 4, 0)
    now[0] = AVOIDED_S + 1
    assert nodes.kept_off() == set()
    assert nodes.shortage(MEGAPIXELS, 4, 0) == ""
    nodes.drain("b", drained=True)
    assert nodes.kept_off("id-a") == {"id-b"}, "somewhere it has to be"
    now[0] *= 10
    assert [use.drained for use in nodes.uses([("x", "id-b")])] == [False, True]
    nodes.drain("b", drained=False)
    assert nodes.kept_off("id-a") == {"id-a"}
    with pytest.raises(KeyError):
        nodes.drain("c", drained=True)
    assert not nodes.have(GPU)


class TwoNodes(ScriptedPlacement):
    """Its streams are on one node, until that is drained."""

    def __init__(self) -> None:
        super().__init__()
        self.drained: set[str] = set()
        self.places: dict[str, str] = {}
        self.full = ""

    async def start(self, job):
        self.places[job.stream] = "two" if "one" in self.drained else "one"
        return await super().start(job)

    def missing_for(self, job) -> str:
        return self.full

    def nodes(self):
        return [
            NodeUse(
                name=name,
                has={MEGAPIXELS: 4.0},
                free={MEGAPIXELS: 1.0},
                streams=tuple(stream for stream, place in self.places.items() if place == name),
                drained=name in self.drained,
            )
            for name in ("one", "two")
        ]

    def drain(self, node: str, *, drained: bool) -> None:
        if node not in ("one", "two"):
            raise KeyError(node)
        self.drained = self.drained | {node} if drained else self.drained - {node}


async def livesr(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", *words),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_node_is_emptied():
    placement = TwoNodes()
    async with gateway(placement, streams=("a", "b"), cluster=placement) as served:
        await served.in_state("running", "a")
        await served.in_state("running", "b")
        status, said = await livesr("drain", "one", "--url", served.base)
        assert status == 0, said
        assert "a: moved, no frame lost" in said
        assert "one: no stream is left there" in said
        nodes = {node["name"]: node for node in (await served.http.get("/api/nodes")).json()}
        assert (nodes["one"]["streams"], nodes["one"]["drained"]) == ([], True)
        assert sorted(nodes["two"]["streams"]) == ["a", "b"]
        status, said = await livesr("drain", "three", "--url", served.base)
        assert status != 0
        assert "there is no node 'three'" in said
        assert (await served.http.delete("/api/nodes/one/drain")).json()["drained"] is False

        placement.full = "no node of the cluster has room"
        wanted = {"id": "more", "source": "synthetic:"}
        refused = await served.http.post("/api/streams", json=wanted)
        assert (refused.status_code, refused.json()["detail"]) == (503, f"full: {placement.full}")
        placement.full = ""
        assert (await served.http.post("/api/streams", json=wanted)).status_code == 201


async def test_without_a_cluster_there_are_no_nodes():
    async with gateway() as served:
        assert (await served.http.get("/api/nodes")).json() == []
        assert (await served.http.post("/api/nodes/one/drain")).status_code == 404
        await until(lambda: served.in_state("running"), "it runs")
