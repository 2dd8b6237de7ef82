"""Values that the Helm chart is tried with, and what it makes of them."""

import json
from typing import Any

from tests.deploy.check.conftest import Run

Manifest = dict[str, Any]
SCRAPED = {"serviceMonitor": True, "prometheusRule": True, "dashboards": True, "labels": {"release": "p"}}
TURN = {"urls": ["turn:turn.example.com:3478?transport=udp"], "secret_file": "/run/secrets/livesr/turn"}
ADMIN = {"name": "operator", "token_file": "/run/secrets/livesr/operator", "scopes": ["admin"]}
GUARDED = {"auth": {"tokens": [ADMIN]}, "webrtc": {"ice_servers": [TURN]}, "server": {"drain_s": 30}}
NODE_PORT = {"mode": "service", "firstPort": 30478, "lastPort": 30478, "service": {"type": "NodePort"}}
PODS: list[Manifest] = [{"podSelector": {}}]
REQUESTS = {"requests": {"cpu": "4", "memory": "8Gi"}}
CPUS = {"name": "cpu", "min": 0, "max": 8, "megapixels": 100, "resources": REQUESTS}
GPUS = {
    "name": "l4",
    "min": 1,
    "max": 4,
    "gpus": 1,
    "image": "livesr:gpu-cluster",
    "resources": REQUESTS,
}
PLACED = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "tolerations": [{"key": "nvidia.com/gpu"}]}
SEVERAL = {"settings": GUARDED, "secrets": {"existing": "mine"}}  # replicas need tokens in common
MATRIX: dict[str, Manifest] = {
    "defaults": {},
    "gpu": {"gpu": {"enabled": True, "buildEngines": True}, "tolerations": [{"key": "nvidia.com/gpu"}]},
    "mig": {"gpu": {"enabled": True, "resource": "nvidia.com/mig-3g.20gb", "runtimeClassName": ""}},
    "host network": {"media": {"mode": "hostNetwork"}, "priorityClassName": "live"},
    "range": {"media": {"firstPort": 40000, "lastPort": 40099, "announcedAddresses": ["203.0.113.7"]}},
    "balancer": {"media": {"mode": "service", "announcedAddresses": ["203.0.113.7"]}},
    "node port": {"media": NODE_PORT},
    "relay": {"media": {"mode": "relay"}, "settings": GUARDED, "secrets": {"existing": "mine"}},
    "secrets": {"settings": GUARDED, "secrets": {"data": {"operator": "token", "turn": "north"}}},
    "ingress": {
        "ingress": {"enabled": True, "host": "video.example.com", "tlsSecret": "tls", "className": "nginx"}
    },
    "metrics": {"metrics": SCRAPED},
    "scaled": {"metrics": SCRAPED, "autoscaling": {"enabled": True, "maxReplicas": 3}, **SEVERAL},
    "scaled gpus": {
        "gpu": {"enabled": True},
        "metrics": SCRAPED,
        "autoscaling": {"enabled": True},
        **SEVERAL,
    },
    "nothing kept": {"persistence": {"enabled": False}, "replicas": 3, **SEVERAL},
    "open inside": {
        "networkPolicy": {"privateSources": ["192.168.1.0/24"], "metricsFrom": [{"podSelector": {}}]}
    },
    "cluster": {"cluster": {"enabled": True}},
    "gateways": {"cluster": {"enabled": True}, "replicas": 3, **SEVERAL},
    "drained cluster": {
        "cluster": {
            "enabled": True,
            "drainToken": "operator",
            "groups": [CPUS, GPUS | PLACED | {"runtimeClassName": "nvidia"}],
        },
        "settings": GUARDED,
        "secrets": {"existing": "mine"},
        "priorityClassName": "live",
    },
    "audience": {
        "hlsCache": {"enabled": True, "token": "viewers"},
        "secrets": {"existing": "mine"},
        "ingress": {"enabled": True, "host": "video.example.com"},
        "networkPolicy": {"httpFrom": PODS},
    },
    "bare": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
}


def charts(tool: Run, values: list[Manifest]) -> list[dict[str, Any]]:
    return json.loads(tool("python", "tests/deploy/check/charts.py", stdin=json.dumps(values)))


def one(documents: list[Manifest], kind: str, name: str = "livesr") -> Manifest:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def pod(documents: list[Manifest]) -> Manifest:
    return one(documents, "StatefulSet")["spec"]["template"]["spec"]


def ray_pods(cluster: Manifest) -> list[Manifest]:
    """The head's and each group's."""
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"] for group in groups]
