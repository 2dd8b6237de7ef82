"""The pod of the chart, run by podman with the image that was built."""

import copy
import re
from pathlib import Path

import yaml

from tests.deploy.check.conftest import Run
from tests.deploy.check.images import IMAGE, Images
from tests.deploy.check.manifests import Manifest, charts, one, pod
from tests.peers.service import until
from tests.ports import free_port

REPOSITORY, _, TAG = IMAGE.rpartition(":")
VALUES = {
    "image": {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"},
    "media": {"mode": "hostNetwork"},
    "persistence": {"enabled": False},
}


def as_pod(documents: list[Manifest]) -> str:
    """The pod of the StatefulSet and its ConfigMap: `podman play kube` takes no StatefulSet.

    Nor does it take a list of ports beside the host's network, where Kubernetes wants one for its probes.
    """
    spec = copy.deepcopy(pod(documents))
    del spec["containers"][0]["ports"]
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "livesr-check"}, "spec": spec}
    return yaml.safe_dump_all([one(documents, "ConfigMap"), made])


def test_the_pod_gets_ready_and_may_change_nothing(images: Images, tool: Run, tmp_path: Path) -> None:
    (made,) = charts(tool, [VALUES])
    texts = [text for path, text in made["files"].items() if path.endswith(".yaml")]
    documents = [document for text in texts for document in yaml.safe_load_all(text) if document]
    # Ports of this machine, which others use, too.
    port = free_port()
    text = re.sub(r"\b8080\b", str(port), as_pod(documents)).replace("9464", str(free_port()))
    file, name = tmp_path / "pod.yaml", "livesr-check-livesr"
    file.write_text(text)
    ready = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/readyz', timeout=4)"
    asked = ("podman", "exec", name, "python3", "-c", ready)
    try:
        images.run("podman", "play", "kube", "--network", "host", file)
        until(lambda: images.tried(*asked).returncode == 0, "it is ready")
        assert "CapEff:\t0000000000000000" in images.run("podman", "exec", name, "cat", "/proc/self/status")
        assert images.tried("podman", "exec", name, "touch", "/etc/livesr/x").returncode != 0
        done = images.tried("podman", "logs", name)
        assert "#token=livesr_" in done.stdout + done.stderr
        assert "streams of the API end" not in done.stdout + done.stderr
    finally:
        images.tried("podman", "play", "kube", "--down", file)
