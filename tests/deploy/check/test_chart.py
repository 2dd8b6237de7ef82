"""The Helm chart over a matrix of values, by Helm, kubernetes-validate, kustomize, trivy and the service."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings.read import load
from tests.conftest import ROOT, missing_peer
from tests.deploy.check.conftest import Run
from tests.deploy.check.manifests import CPUS, GPUS, MATRIX, SEVERAL, Manifest, charts, one, pod, ray_pods

EXCEPTIONS = "deploy/.trivyignore.yaml"
# Kinds of operators, which Kubernetes' own schemas don't know.
FOREIGN = ("ServiceMonitor", "PrometheusRule", "ScaledObject", "RayCluster")
cases = pytest.mark.parametrize("case", MATRIX)


@pytest.fixture(scope="module")
def made(tool: Run) -> dict[str, dict[str, Any]]:
    return dict(zip(MATRIX, charts(tool, list(MATRIX.values())), strict=True))


@pytest.fixture(scope="module")
def manifests(made: dict[str, dict[str, Any]]) -> Callable[[str], list[Manifest]]:
    def of(case: str) -> list[Manifest]:
        texts = [text for path, text in made[case]["files"].items() if path.endswith(".yaml")]
        return [document for text in texts for document in yaml.safe_load_all(text) if document]

    return of


@cases
def test_helm_has_nothing_to_say_of_it(made: dict[str, dict[str, Any]], case: str) -> None:
    assert made[case]["error"] == ""
    assert [m for m in made[case]["lint"] if m["severity"] > 1] == []


@cases
def test_kubernetes_takes_what_it_makes(
    manifests: Callable[[str], list[Manifest]], tool: Run, case: str, tmp_path: Path
) -> None:
    own = [document for document in manifests(case) if document["kind"] not in FOREIGN]
    assert {"StatefulSet", "Service", "ConfigMap"} <= {document["kind"] for document in own}
    # KubeRay makes pods of these, so they have to be some.
    own += [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}, "template": template}
        for document in manifests(case)
        if document["kind"] == "RayCluster"
        for template in ray_pods(document)
    ]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump_all(own))
    tool("kubernetes-validate", "--strict", file)


@cases
def test_the_service_takes_the_settings(
    manifests: Callable[[str], list[Manifest]],
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = manifests(case)
    text = one(documents, "ConfigMap")["data"]["livesr.toml"]
    for name in ("operator", "turn"):
        (tmp_path / name).write_text(name)
    file = tmp_path / "livesr.toml"
    file.write_text(text.replace("/run/secrets/livesr", str(tmp_path)))
    for variable in pod(documents)["containers"][0].get("env", ()):
        monkeypatch.setenv(variable["name"], variable.get("value", "").replace("$(NODE_ADDRESS)", "10.0.0.5"))
    settings = load(file)
    media = MATRIX[case].get("media", {})
    ports = (media.get("firstPort", 40000), media.get("lastPort", 40000))
    assert settings.webrtc.udp_ports == (None if media.get("mode") == "relay" else ports)
    assert settings.server.metrics_listener == "0.0.0.0:9464"
    to_node = (
        media.get("mode", "hostPort") == "hostPort" or media.get("service", {}).get("type") == "NodePort"
    )
    expected = media.get("announcedAddresses") or (["10.0.0.5"] if to_node else [])
    assert list(settings.webrtc.announced_addresses) == expected
    grace_s = pod(documents)["terminationGracePeriodSeconds"]
    pause_s = pod(documents)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace_s == pause_s + settings.server.drain_s + 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 2}, "replica"),
        ({"media": {"mode": "magic"}}, "/media/mode"),
        ({"media": {"lastPort": 39999}}, "media.lastPort=39999: must not be below media.firstPort=40000"),
        ({"media": {"mode": "service"}, "replicas": 2, **SEVERAL}, "takes one replica"),
        ({"autoscaling": {"enabled": True}, **SEVERAL}, "needs metrics.serviceMonitor"),
        ({"ingress": {"enabled": True}}, "ingress.host: must name the host"),
        ({"networkPolicy": {"privateSources": ["cameras"]}}, "/networkPolicy/privateSources/0"),
        ({"hlsCache": {"enabled": True}}, "a token of the scope view"),
        ({"hlsCache": {"enabled": True, "token": "viewers"}}, "there is neither"),
        ({"cluster": {"enabled": True}, "replicas": 2}, "settings.auth: more than one replica"),
        ({"cluster": {"enabled": True}, "autoscaling": {"enabled": True}, **SEVERAL}, "Ray scales"),
        ({"cluster": {"enabled": True}, "gpu": {"enabled": True}}, "GPUs are a group's"),
        (
            {"cluster": {"enabled": True}, "media": {"mode": "hostNetwork"}},
            "needs networkPolicy.enabled=false",
        ),
        ({"cluster": {"enabled": True, "drainToken": "operator"}}, "there is neither"),
        ({"cluster": {"groups": [CPUS | {"gpus": 1}]}}, "/cluster/groups/0"),
        ({"cluster": {"enabled": True, "groups": [CPUS | {"min": 9}]}}, "cpu: min=9 must not be above max=8"),
        ({"cluster": {"enabled": True, "groups": [GPUS | {"min": 0}]}}, "l4: min=0"),
        ({"cluster": {"enabled": True, "groups": [GPUS | {"image": ""}]}}, "l4: has gpus, and no image"),
    ],
)
def test_values_that_make_no_sense_are_refused(tool: Run, values: Manifest, said: str) -> None:
    (refused,) = charts(tool, [values])
    assert said in refused["error"]


def test_trivy_finds_nothing_but_what_has_a_reason(
    manifests: Callable[[str], list[Manifest]], tool: Run, tmp_path: Path
) -> None:
    for case in MATRIX:
        (tmp_path / f"{case.replace(' ', '-')}.yaml").write_text(yaml.safe_dump_all(manifests(case)))
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    assert trivy(tool, tmp_path, "--ignorefile", EXCEPTIONS) == {}
    excepted = {entry["id"] for entry in yaml.safe_load((ROOT / EXCEPTIONS).read_text())["misconfigurations"]}
    assert excepted == set(trivy(tool, tmp_path)), "and there is no reason for what it does not find"


def test_hadolint_has_nothing_to_say_of_the_image(tool: Run) -> None:
    assert tool("hadolint", "Dockerfile") == ""


def trivy(tool: Run, folder: Path, *words: str) -> dict[str, str]:
    """What it has against the files of a folder, by the number of its check."""
    said = tool("trivy", "config", "--skip-check-update", "--quiet", "--format", "json", *words, folder)
    return {
        problem["AVDID"]: f"{result['Target']}: {problem['Message']}"
        for result in json.loads(said).get("Results", ())
        for problem in result.get("Misconfigurations", ())
    }


def test_readme_and_kustomize_say_what_the_chart_says(tool: Run) -> None:
    assert tool("python", "deploy/helm/generate.py", "--check") == ""


@pytest.mark.parametrize("variant", ["cpu", "gpu", "cluster"])
def test_kustomize_builds_what_kubernetes_takes(tool: Run, variant: str, tmp_path: Path) -> None:
    built = tool("kubectl", "kustomize", f"deploy/kustomize/{variant}")
    assert {document["kind"] for document in yaml.safe_load_all(built)} >= {"Namespace", "StatefulSet"}
    own = [document for document in yaml.safe_load_all(built) if document["kind"] not in FOREIGN]
    (tmp_path / "built.yaml").write_text(yaml.safe_dump_all(own))
    tool("kubernetes-validate", "--strict", tmp_path / "built.yaml")


def test_the_gpu_is_asked_for_by_whoever_uses_it(manifests: Callable[[str], list[Manifest]]) -> None:
    whole = pod(manifests("gpu"))
    for container in (*whole["initContainers"], *whole["containers"]):
        assert container["image"].endswith("-gpu")
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert whole["runtimeClassName"] == "nvidia"
    part = pod(manifests("mig"))
    assert part["containers"][0]["resources"]["limits"]["nvidia.com/mig-3g.20gb"] == 1
    assert "runtimeClassName" not in part
    assert "nvidia" not in json.dumps(pod(manifests("defaults")))


def test_the_gateway_joins_the_cluster_and_a_pod_that_ends_has_its_streams_moved(
    manifests: Callable[[str], list[Manifest]],
) -> None:
    documents = manifests("drained cluster")
    cluster = one(documents, "RayCluster")
    head = f"{cluster['metadata']['name']}-head-svc:6379"  # as KubeRay calls it
    gateway = pod(documents)
    (ray,) = gateway["initContainers"]
    assert ray["restartPolicy"] == "Always"
    assert f"--address={head}" in ray["args"]
    assert f"--cluster={head}" in gateway["containers"][0]["args"]
    assert gateway["shareProcessNamespace"], "by its process Ray finds the node that the gateway is on"
    for container in (ray, gateway["containers"][0]):
        (token,) = [variable for variable in container["env"] if variable["name"] == "RAY_AUTH_TOKEN"]
        assert token["valueFrom"]["secretKeyRef"] == {"name": "livesr", "key": "auth_token"}
    selector = one(documents, "Service")["spec"]["selector"].items()
    secrets = []
    for template in ray_pods(cluster):
        assert not selector <= template["metadata"]["labels"].items(), "no viewer is sent to a worker"
        secrets.append([v["secret"]["items"] for v in template["spec"]["volumes"] if "secret" in v])
    operator = [{"key": "operator", "path": "drain"}]
    assert secrets == [[], [operator], [operator]], "workers see no other secret"
    for template in ray_pods(cluster)[1:]:
        hook = template["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        *_, gateways, token_file, seconds = hook
        assert gateways == one(documents, "StatefulSet")["spec"]["serviceName"] + ":8080"
        assert token_file == "/run/secrets/livesr/drain"
        assert float(seconds) < template["spec"]["terminationGracePeriodSeconds"]


def closed(policy: Manifest) -> bool:
    """Whether private addresses are out of reach."""
    blocks = [p["ipBlock"] for rule in policy["spec"]["egress"] for p in rule["to"] if "ipBlock" in p]
    inside = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7"}
    return inside <= {cidr for block in blocks for cidr in block.get("except", ())}


def test_hosts_are_reached_by_gateways_and_each_other_only(
    manifests: Callable[[str], list[Manifest]],
) -> None:
    documents = manifests("cluster")
    ray, gateway = one(documents, "NetworkPolicy", "livesr-ray"), one(documents, "NetworkPolicy")
    hosts = {"podSelector": {"matchLabels": {"ray.io/cluster": "livesr"}}}
    gateways = {"podSelector": {"matchLabels": gateway["spec"]["podSelector"]["matchLabels"]}}
    assert ray["spec"]["podSelector"] == hosts["podSelector"]
    assert ray["spec"]["ingress"] == [{"from": [hosts, gateways]}]
    assert {"to": [hosts, gateways]} in gateway["spec"]["egress"]
    assert {"from": [hosts, gateways]} in gateway["spec"]["ingress"], "gateways pass packets on to each other"
    inside = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7"}
    blocks = [peer["ipBlock"] for rule in ray["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert inside <= {cidr for block in blocks for cidr in block.get("except", ())}, (
        "sources are opened there"
    )


def test_nothing_inside_is_reached_unless_it_is_named(manifests: Callable[[str], list[Manifest]]) -> None:
    assert closed(one(manifests("defaults"), "NetworkPolicy"))
    opened = one(manifests("open inside"), "NetworkPolicy")["spec"]["egress"]
    assert {"ipBlock": {"cidr": "192.168.1.0/24"}} in [peer for rule in opened for peer in rule["to"]]


def test_prometheus_takes_the_rules_of_the_chart(
    manifests: Callable[[str], list[Manifest]], tmp_path: Path
) -> None:
    rules = one(manifests("metrics"), "PrometheusRule")["spec"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    promtool(tmp_path, "check", "rules", "rules.yml")
    shipped = [
        yaml.safe_load((ROOT / f"deploy/prometheus/{name}.yml").read_text()) for name in ("rules", "alerts")
    ]
    assert rules["groups"] == [group for file in shipped for group in file["groups"]]


def test_the_audience_of_hls_comes_to_the_cache_and_the_cache_to_the_service(
    manifests: Callable[[str], list[Manifest]],
) -> None:
    documents = manifests("audience")
    name = "livesr-hls-cache"
    hls, rest = one(documents, "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert (hls["path"], hls["backend"]["service"]["name"]) == ("/hls/", name)
    assert (rest["path"], rest["backend"]["service"]["name"]) == ("/", "livesr")
    cache = one(documents, "Deployment", name)["spec"]["template"]
    assert one(documents, "Service", name)["spec"]["selector"].items() <= cache["metadata"]["labels"].items()
    assert not one(documents, "Service")["spec"]["selector"].items() <= cache["metadata"]["labels"].items()
    (file,) = one(documents, "ConfigMap", name)["data"].items()
    assert file == ("hls-cache.conf.template", (ROOT / "deploy/helm/livesr/files/hls-cache.conf").read_text())
    env = {variable["name"]: variable for variable in cache["spec"]["containers"][0]["env"]}
    assert env["LIVESR_SERVICE"]["value"] == "livesr:80"
    assert env["LIVESR_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "viewers"}
    allowed = one(documents, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": cache["metadata"]["labels"]}} in allowed


def test_dashboards_are_those_that_ship(manifests: Callable[[str], list[Manifest]]) -> None:
    found = {}
    for document in manifests("metrics"):
        if document["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            found |= document["data"]
    shipped = {
        path.name: json.loads(path.read_text()) for path in ROOT.glob("deploy/grafana/dashboards/*.json")
    }
    assert {name: json.loads(text) for name, text in found.items()} == shipped


@pytest.mark.parametrize(
    ("viewers", "replicas"),
    [((0, 0, 0), 0), ((3, 0, 0), 1), ((0, 0, 1), 3), ((2, 1, 0), 2), ((), 0)],
    ids=str,
)
def test_scaling_keeps_every_pod_up_to_the_last_with_viewers(
    manifests: Callable[[str], list[Manifest]], tmp_path: Path, viewers: tuple[int, ...], replicas: int
) -> None:
    """The query by Prometheus, with so many viewers in the pods livesr-0, -1 and -2."""
    used, watched = one(manifests("scaled"), "ScaledObject")["spec"]["triggers"]
    assert watched["metadata"]["threshold"] == "1", "the count itself is how many"
    series = []
    for n, count in enumerate(viewers):
        pod = f'namespace="video",pod="livesr-{n}"'
        # Two streams, whose viewers add up; half of all cores used.
        series += [
            {"series": f'livesr_viewers{{{pod},stream="a",protocol="webrtc"}}', "values": str(count)},
            {"series": f'livesr_viewers{{{pod},stream="b",protocol="hls"}}', "values": "0"},
            {"series": f"livesr_capacity_used_cores{{{pod}}}", "values": "2"},
            {"series": f"livesr_capacity_cores{{{pod}}}", "values": "4"},
            {"series": f"up{{{pod}}}", "values": "1"},
        ]
    counts = [(watched["metadata"]["query"], replicas)]
    if viewers:
        counts.append((used["metadata"]["query"], len(viewers) / 2))
    tests = [
        {"expr": query, "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": value}]}
        for query, value in counts
    ]
    unit = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}
    (tmp_path / "scaling.yml").write_text(yaml.safe_dump(unit))
    promtool(tmp_path, "test", "rules", "scaling.yml")


def promtool(folder: Path, *words: str) -> None:
    program = shutil.which("promtool") or missing_peer("promtool", "apt-get install prometheus")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_described_and_every_description_has_a_value() -> None:
    chart = ROOT / "deploy/helm/livesr"
    schema = json.loads((chart / "values.schema.json").read_text())

    def keys(about: Manifest, above: str = "") -> set[str]:
        if "properties" not in about:
            return {above}
        return {key for name, child in about["properties"].items() for key in keys(child, f"{above}.{name}")}

    def given(values: Any, known: set[str], above: str = "") -> set[str]:
        if above in known or not isinstance(values, dict):
            return {above}
        return {key for name, child in values.items() for key in given(child, known, f"{above}.{name}")}

    described = keys(schema) - {".global"}
    assert given(yaml.safe_load((chart / "values.yaml").read_text()), described) == described
