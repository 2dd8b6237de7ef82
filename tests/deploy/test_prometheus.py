"""The Prometheus files: valid, on metrics that exist; alerts fire when they should, and have a runbook."""

import re
import shutil
import subprocess
from typing import get_args

import pytest
import yaml

from loadtest.metrics import GATEWAY_CPU, GATEWAY_RSS, WORKER_RSS
from server.gateway.figures.metrics import Metrics
from server.gateway.figures.table import every_metric
from server.gateway.figures.views import StreamState
from tests.conftest import ROOT, missing_peer

FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = (FOLDER / "alerts.yml").read_text()
RULES = (FOLDER / "rules.yml").read_text()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


@pytest.mark.parametrize(
    "command",
    [
        "promtool check config prometheus.yml",
        "promtool check rules rules.yml alerts.yml",
        "promtool test rules alerts_test.yml slo_test.yml",
        "amtool check-config ../alertmanager/alertmanager.yml",
    ],
)
def test_the_programs_that_read_them_agree(command):
    name, *words = command.split()
    package = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}[name]
    program = shutil.which(name) or missing_peer(name, f"apt-get install {package}")

    done = subprocess.run([program, *words], cwd=FOLDER, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr


def exported() -> set[str]:
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    described = every_metric().described
    process = {f.name + "_total" * (f.type == "counter") for f in Metrics().registry.collect()}
    return process | {d.name + suffix for d in described for suffix in suffixes.get(d.kind, ("",))}


def test_alerts_use_metrics_that_the_service_exports():
    recorded = set(re.findall(r"record: (\S+)", RULES))
    used = set(re.findall(r"stream:livesr_\w+:\w+", ALERTS + RULES))
    names = set(re.findall(r"(?<!:)\blivesr_\w+(?=[\[{ ])", ALERTS + RULES))

    assert len(names) > 10
    assert names <= exported()
    assert used == recorded


def test_alerts_use_states_that_streams_have():
    states = set(re.findall(r'state="(\w+)"', ALERTS))

    assert states
    assert states <= set(get_args(StreamState))


def test_the_load_test_reads_metrics_that_the_service_exports():
    assert {GATEWAY_CPU, GATEWAY_RSS, WORKER_RSS} <= exported()


def alerts() -> list[dict]:
    return [rule for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]


def test_every_alert_has_a_test():
    tests = "".join((FOLDER / f"{name}_test.yml").read_text() for name in ("alerts", "slo"))

    assert {rule["alert"] for rule in alerts()} == set(re.findall(r"alertname: (\w+)", tests))


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))

    assert set(sections) == {rule["alert"] for rule in alerts()}
    for name, text in sections.items():
        assert re.findall(r"^\*\*([\w ]+):\*\*", text, re.MULTILINE) == ["Means", "Look at", "Do"], name
    for rule in alerts():
        # As Markdown makes an anchor of a heading.
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_runbook_names_metrics_and_settings_that_exist():
    reference = (ROOT / "deploy" / "livesr.toml").read_text()
    keys = set(re.findall(r"^#?(\w+) = ", reference, re.MULTILINE))
    named = set(re.findall(r"`(?:defaults|limits|recording|server)\.(\w+)`", RUNBOOK))

    assert set(re.findall(r"`(livesr_\w+|process_\w+)`", RUNBOOK)) <= exported()
    assert named <= keys
