"""The pods of the chart's cluster as containers here: Ray's head, a worker, two gateways beside their nodes.

`podman play kube` knows no sidecar that goes on: what each container runs is taken from the chart.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import httpx
import yaml

from tests.deploy.check.conftest import Run
from tests.deploy.check.images import RAY_IMAGE, Container, Images
from tests.deploy.check.manifests import charts, one, pod
from tests.peers.service import until
from tests.ports import free_port

TOKEN = "5f1c0a9e77b01d3c5f1c0a9e77b01d3c"
RAY = f"-e RAY_AUTH_MODE=token -e RAY_AUTH_TOKEN={TOKEN} -e RAY_USAGE_STATS_ENABLED=0 --shm-size 128m"


def test_a_stream_runs_in_the_workers_pod_and_is_seen_at_the_gateways(
    images: Images, tool: Run, tmp_path: Path
) -> None:
    images.build(RAY_IMAGE, "cluster")
    (made,) = charts(tool, [{"cluster": {"enabled": True}}])
    texts = [text for path, text in made["files"].items() if path.endswith(".yaml")]
    documents = [document for text in texts for document in yaml.safe_load_all(text) if document]
    gcs = free_port()
    (group,) = one(documents, "RayCluster")["spec"]["workerGroupSpecs"]
    (ray,), (service,) = pod(documents)["initContainers"], pod(documents)["containers"]

    def here(words: list[str]) -> list[str]:
        places = {"livesr-head-svc:6379": f"127.0.0.1:{gcs}", "=6380": f"={free_port()}"}
        for there, place in places.items():
            words = [word.replace(there, place) for word in words]
        return words

    # As KubeRay makes it of the group.
    carries = f'--resources={{"livesr_megapixels": {group["resources"]["livesr_megapixels"]}}}'
    joins = [*ray["command"], *ray["args"]]
    with ExitStack() as pods:

        def started(command: list[str], options: str = "", tmp: str = "--tmpfs /tmp") -> Container:
            program, *words = command
            options = f"--network host {RAY} {options} --entrypoint {program}"
            return pods.enter_context(images.started(*words, options=options, image=RAY_IMAGE, tmp=tmp))

        head = started(["ray", "start", "--head", "--block", f"--port={gcs}", "--num-cpus=0"])
        until(lambda: "Ray runtime started" in head.log(), "Ray's head has started")
        worker = started([*here(joins), carries], "-e XDG_CACHE_HOME=/var/cache/livesr")
        until(lambda: "Ray runtime started" in worker.log(), "a worker's node has joined")
        for replica in ("home", "other"):
            shared = tmp_path / replica
            shared.mkdir()
            os.chown(shared, 1000, 1000)  # the container's user
            node = started(here(joins), tmp=f"-v {shared}:/tmp")
            until(lambda node=node: "Ray runtime started" in node.log(), "the gateway's node has joined")
            http = free_port()
            command = ["tini", "--", "livesr", *here(service["args"]), "--host=127.0.0.1", f"--port={http}"]
            options = f"--pid container:{node.name} -e LIVESR_SERVER__OPEN_TO_THE_WORLD=true"
            gateway = started(command, options, tmp=f"-v {shared}:/tmp")
            api = pods.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=30))
            until(
                lambda api=api: _plays(api), f"the demo plays at the {replica} gateway\n{gateway.log()}", 120
            )
            own = api.get("/api/streams?here=true").json()
            assert len(own) == (replica == "home"), "the other has its packets from there"
            if own:
                (on,) = [found for found in api.get("/api/nodes").json() if found["streams"]]
                assert on["has"]["livesr_megapixels"] == float(group["resources"]["livesr_megapixels"])


def _plays(api: httpx.Client) -> bool:
    try:
        return api.get("/hls/demo/index.m3u8").status_code == 200
    except httpx.TransportError:
        return False
