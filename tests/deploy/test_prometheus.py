"""The Prometheus files: valid by promtool, their alerts fire when they should, on metrics that exist."""

import re
import shutil
import subprocess
from typing import get_args

import pytest

from loadtest.metrics import GATEWAY_CPU, GATEWAY_RSS, WORKER_RSS
from server.gateway.figures.metrics import Metrics
from server.gateway.figures.views import StreamState
from tests.conftest import ROOT, missing_peer

FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = (FOLDER / "alerts.yml").read_text()


@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_promtool_agrees(command):
    promtool = shutil.which("promtool") or missing_peer("promtool", "apt-get install prometheus")

    done = subprocess.run(
        [promtool, *command.split()], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


def exported() -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    families = Metrics().registry.collect()
    return {f.name + suffix for f in families for suffix in suffixes.get(f.type, ("",))}


def test_alerts_use_metrics_that_the_service_exports():
    names = set(re.findall(r"livesr_\w+", ALERTS))

    assert names
    assert names <= exported()


def test_alerts_use_states_that_streams_have():
    states = set(re.findall(r'state="(\w+)"', ALERTS))

    assert states
    assert states <= set(get_args(StreamState))


def test_the_load_test_reads_metrics_that_the_service_exports():
    assert {GATEWAY_CPU, GATEWAY_RSS, WORKER_RSS} <= exported()


def test_every_alert_has_a_test():
    tests = (FOLDER / "alerts_test.yml").read_text()

    assert set(re.findall(r"alert: (\w+)", ALERTS)) == set(re.findall(r"alertname: (\w+)", tests))
