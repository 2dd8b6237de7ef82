"""Helm on the chart, for many values at once: JSON in, JSON out. Runs where helm-python-sdk is installed."""

import json
import sys

import helm_python

CHART = "deploy/helm/livesr"


def main() -> None:
    """From a list of values to one of {"lint": messages, "files": manifests by template, "error": text}."""
    made = []
    with helm_python.Chart.load(CHART) as chart:
        for values in json.load(sys.stdin):
            report = helm_python.lint(CHART, values, strict=True, namespace="video")
            found = {"lint": report["messages"], "files": {}, "error": ""}
            try:
                found["files"] = chart.render(values, name="livesr", namespace="video")
            except helm_python.HelmError as exc:
                found["error"] = str(exc)
            made.append(found)
    json.dump(made, sys.stdout)


main()
