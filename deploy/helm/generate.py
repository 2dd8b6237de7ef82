"""Writes what follows from the chart: its README's table, and the manifests of deploy/kustomize.

`make chart` runs it where helm-python-sdk is installed; a test runs it with --check, which writes nothing and
names what differs.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

DEPLOY = Path(__file__).parents[1]
CHART = DEPLOY / "helm" / "livesr"
BEGIN, END = "<!-- values -->", "<!-- /values -->"
OPERATOR = {"name": "operator", "token_file": "/run/secrets/livesr/operator", "scopes": ["admin"]}
# One folder each: kubectl apply -k deploy/kustomize/cpu
VARIANTS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {"gpu": {"enabled": True, "buildEngines": True}},
    "cluster": {
        "cluster": {"enabled": True, "drainToken": "operator"},
        "secrets": {"existing": "livesr-tokens"},
        "settings": {"auth": {"tokens": [OPERATOR]}},
    },
}


def rows(schema: dict[str, Any], values: dict[str, Any], above: str = "") -> Iterator[str]:
    """A line of the table for each value that the chart reads."""
    for name, about in schema["properties"].items():
        if name not in values:
            continue
        key = f"{above}{name}"
        if "properties" in about:
            yield from rows(about, values[name], f"{key}.")
        else:
            default = json.dumps(values[name])
            yield f"| `{key}` | `{default}` | {about['description'].replace('|', '&#124;')} |"


def readme() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = ["| Value | Default | What it is |", "|---|---|---|", *rows(schema, values)]
    before, _, rest = (CHART / "README.md").read_text().partition(BEGIN)
    return before + "\n".join([BEGIN, *table, END]) + rest.partition(END)[2]


def manifests(values: dict[str, Any]) -> str:
    with helm_python.Chart.load(str(CHART)) as chart:
        made = chart.render(values, name="livesr", namespace="livesr")
    texts = [text for path, text in sorted(made.items()) if path.endswith(".yaml")]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "livesr"}}
    documents = [
        namespace,
        *(document for text in texts for document in yaml.safe_load_all(text) if document),
    ]
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)


def main() -> int:
    files = {CHART / "README.md": readme()}
    for variant, values in VARIANTS.items():
        path = DEPLOY / "kustomize" / variant / "livesr.yaml"
        files[path] = "# Made of the chart by make chart.\n" + manifests(values)
    differing = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in differing:
            print(f"{path.relative_to(DEPLOY.parent)} is not what the chart says: make chart")
        return 1 if differing else 0
    for path in differing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    return 0


sys.exit(main())
