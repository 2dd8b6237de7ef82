"""What Ray's autoscaler starts on Kubernetes for a service's demands, by the groups of deploy/kustomize."""

from collections import Counter
from pathlib import Path

import yaml

from tests.cluster.conftest import LIGHT, SOURCE, all_running, cluster, serving
from tests.conftest import ROOT
from tests.peers.service import until


def launched(gcs_address: str) -> Counter[str]:
    """Pods by group that it would start for what nodes have no room for, where none has started yet."""
    # May be absent: these tests are skipped then.
    from ray._raylet import GcsClient
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    documents = yaml.safe_load_all((ROOT / "deploy/kustomize/cluster/livesr.yaml").read_text())
    (asked_for,) = [document for document in documents if document["kind"] == "RayCluster"]
    for group in asked_for["spec"]["workerGroupSpecs"]:
        group["minReplicas"] = 0  # those come anyway
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(asked_for), skip_content_hash=True)
    demands = get_cluster_resource_state(GcsClient(gcs_address)).pending_resource_requests
    request = SchedulingRequest(
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=list(demands),
        disable_launch_config_check=True,
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_resource_requests
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


def test_a_stream_without_room_gets_a_pod(tmp_path: Path) -> None:
    with cluster(1, 2) as nodes, serving(tmp_path, nodes) as service, service.stream("s0", SOURCE, **LIGHT):
        all_running(service)
        assert launched(nodes.address) == {}

        # It has room, but streams are kept off it; an empty pod isn't it.
        (node,) = [node for node in service.http.get("/api/nodes").json() if node["has"]["livesr_megapixels"]]
        assert service.http.post(f"/api/nodes/{node['name']}/drain").status_code == 200
        answer = service.http.post("/api/streams", json={"id": "more", "source": SOURCE, **LIGHT})
        assert answer.status_code == 503
        until(lambda: launched(nodes.address) == {"cpu": 1}, "a pod is started for it")
