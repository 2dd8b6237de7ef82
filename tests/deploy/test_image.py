"""What the container is made of is there: the image itself is built and run by whoever releases it."""

import re

import pytest

from server.settings import load
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COPIED = [
    source
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in sources.split()
]


@pytest.mark.parametrize("source", COPIED)
def test_what_the_image_copies_exists_and_is_in_the_build(source):
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_image_serves_where_its_health_check_and_prometheus_look():
    settings = load(ROOT / "deploy" / "demo.toml")

    assert f"EXPOSE {settings.server.port}" in DOCKERFILE
    assert f"127.0.0.1:{settings.server.port}/" in DOCKERFILE
    assert f":{settings.server.port}" in (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert [stream.id for stream in settings.streams] == ["demo"]


def test_the_image_has_the_hls_player_that_make_web_installs():
    players = [
        re.search(r"node_modules/(hls\.js/\S+)", (ROOT / name).read_text())
        for name in ("Dockerfile", "Makefile")
    ]

    assert all(players)
    assert len({player[1] for player in players if player}) == 1


def stage(name: str) -> str:
    """What the Dockerfile says of one stage."""
    return next(part for part in DOCKERFILE.split("\nFROM ") if part.split("\n")[0].endswith(f" AS {name}"))


def test_without_a_target_the_image_is_the_one_for_the_cpu():
    assert re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "cpu"


@pytest.mark.parametrize("words", ["USER 1000", "HEALTHCHECK", "ENTRYPOINT", 'CMD ["serve"', "EXPOSE"])
def test_both_images_start_alike(words):
    lines = [[line for line in stage(name).splitlines() if words in line] for name in ("cpu", "gpu")]
    assert lines[0]
    assert lines[0] == lines[1]


def test_the_gpu_image_keeps_its_engines_in_a_volume():
    folder = re.search(r"LIVESR_ARTIFACTS=(\S+)/artifacts", stage("gpu"))

    assert folder
    assert f"\nVOLUME {folder[1]}\n" in stage("gpu")
    assert f"artifacts:{folder[1]}\n" in (ROOT / "deploy" / "compose.yaml").read_text()
