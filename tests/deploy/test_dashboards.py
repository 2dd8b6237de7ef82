"""Grafana's files: what the builder makes, as Grafana's schema has it, about metrics that exist."""

import json
import re

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.build import FOLDER, dashboards, json_of
from server.gateway.figures.table import every_metric
from tests.conftest import ROOT

FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", dashboards())
def test_the_files_are_what_the_builder_makes(name):
    made = "python -m deploy.grafana.build makes it anew"
    assert (FOLDER / f"{name}.json").read_text() == json_of(dashboards()[name]), made


def test_there_are_no_others():
    assert {path.stem for path in FILES} == set(dashboards())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_schema_knows_all_of_it(path):
    """Read by types that are generated from Grafana's schema, nothing of it gets lost."""
    register_default_plugins()
    written = json.loads(path.read_text())

    read = Dashboard.from_json(written)

    assert json.loads(JSONEncoder().encode(read)) == written
    assert len({panel["id"] for panel in written["panels"]}) == len(written["panels"])
    for panel in written["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]


def test_they_ask_for_metrics_that_the_service_exports():
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    described = every_metric().described
    exported = {d.name + suffix for d in described for suffix in suffixes.get(d.kind, ("",))}
    asked = {name for path in FILES for name in re.findall(r"livesr_\w+", path.read_text())}

    assert len(asked) > 20
    assert asked <= exported


def test_grafana_is_told_where_everything_is():
    [source] = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())

    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
