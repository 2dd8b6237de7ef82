"""The dashboards: `python -m deploy.grafana.build` writes them to deploy/grafana/dashboards/."""

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards.capacity import capacity
from deploy.grafana.boards.gpu import gpu
from deploy.grafana.boards.overview import overview
from deploy.grafana.boards.stream import stream

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Dashboard]:
    """By the name of the file, without its ending."""
    return {"overview": overview(), "stream": stream(), "capacity": capacity(), "gpu": gpu()}


def json_of(made: Dashboard) -> str:
    """As Grafana reads it."""
    built = made.build()
    for number, panel in enumerate(built.panels or [], 1):
        panel.id_val = number  # links to a panel go on meaning it
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


if __name__ == "__main__":
    for name, made in dashboards().items():
        (FOLDER / f"{name}.json").write_text(json_of(made))
