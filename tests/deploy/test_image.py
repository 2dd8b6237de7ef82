"""The Dockerfile, read as Docker reads it, against the tree and the service that it packs.

The image itself is built and run by whoever releases it.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest

from server.__main__ import COMMANDS
from server.settings.read import load
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = "server/gateway/web"


@dataclass
class Copy:
    stage: str  # "": the build's context
    sources: list[str]
    target: str


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def every(self) -> list[tuple[str, str]]:
        """Its instructions, after those of the stage that it stands on."""
        below = STAGES[self.base].every() if self.base in STAGES else []
        return below + self.instructions

    def last(self, instruction: str) -> str:
        """The one that counts, of those that replace each other."""
        return [arguments for name, arguments in self.every() if name == instruction][-1]

    def copies(self) -> list[Copy]:
        found = []
        for name, arguments in self.every():
            if name == "COPY":
                flags, paths = re.fullmatch(r"((?:--\S+ )*)(.*)", arguments).groups()
                *sources, target = paths.split()
                found.append(Copy(flags.strip().removeprefix("--from="), sources, target))
        return found


def read_dockerfile() -> dict[str, Stage]:
    """Its stages by name, in order."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    stages: list[Stage] = []
    for line in text.splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, name = arguments.split(" AS ")
            stages.append(Stage(name, base))
        elif instruction and stages:
            stages[-1].instructions.append((instruction, arguments))
    return {stage.name: stage for stage in stages}


STAGES = read_dockerfile()
COPIES = [copy for stage in STAGES.values() for copy in stage.copies()]
images = pytest.mark.parametrize("image", [STAGES["cpu"], STAGES["gpu"]], ids=["cpu", "gpu"])


def sent_to_docker(path: str) -> bool:
    """By .dockerignore: the last pattern that fits a path or a folder above it decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, str(part)) for part in (path, *PurePosixPath(path).parents)):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("source", [source for copy in COPIES if not copy.stage for source in copy.sources])
def test_what_is_copied_exists_and_reaches_the_build_whole(source):
    path = ROOT / source
    assert path.exists()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    made = ("__pycache__", "vendor")  # by Python on each machine, and by the image's stage for the page
    names = [str(file.relative_to(ROOT)) for file in files if file.parent.name not in made]
    assert names
    assert [name for name in names if not sent_to_docker(name)] == []


def test_what_only_this_machine_made_stays_out_of_the_build():
    for path in (
        ".git/config",
        ".venv/bin/python",
        "server/__pycache__/settings.pyc",
        f"{PAGE}/vendor/hls.mjs",
    ):
        assert not sent_to_docker(path), path


def test_stages_copy_from_those_before_them():
    names = list(STAGES)
    for stage in STAGES.values():
        for copy in stage.copies():
            assert not copy.stage or copy.stage in names[: names.index(stage.name)]


def test_every_package_of_the_project_is_in_the_build():
    packages = {
        name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= {source for copy in STAGES["build"].copies() for source in copy.sources}


def test_without_a_target_the_image_is_the_one_for_the_cpu():
    assert list(STAGES)[-1] == "cpu"


@images
def test_the_image_starts_the_service_with_the_demo(image):
    """Its entry point is a command that the project installs, which takes its arguments and its settings."""
    init, end, command = json.loads(image.last("ENTRYPOINT"))
    assert (init, end) == ("tini", "--"), "PID 1 reaps and passes signals on"
    module, _, function = PROJECT["project"]["scripts"][command].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    name, *words = json.loads(image.last("CMD"))
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[name][0]).add_arguments(parser)
    arguments = parser.parse_args(words)
    assert arguments.host == "0.0.0.0"
    (source,) = next(copy.sources for copy in image.copies() if copy.target == str(arguments.config))
    settings = load(ROOT / source)
    assert [stream.id for stream in settings.streams] == ["demo"]
    assert image.last("EXPOSE") == str(settings.server.port)


def test_its_health_check_finds_the_service_wherever_it_listens(tmp_path):
    """By a file that the image's environment names; here one like it."""
    python, *words = json.loads(STAGES["cpu"].last("HEALTHCHECK").partition(" CMD ")[2])
    assert python == "python3"
    (set_by,) = [text for name, text in STAGES["cpu"].every() if name == "ENV" and "URL_FILE" in text]
    variable = re.search(r"(\S+)=/var/lib/livesr/url", set_by)[1]
    proxy = {"http_proxy": "http://127.0.0.1:9"}  # as Docker's client hands on to each container
    environment = {**os.environ, **proxy, variable: str(tmp_path / "url"), "LIVESR_WORKERS__STANDBY": "0"}

    def healthy() -> bool:
        command = [sys.executable, *words]
        return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == 0

    config = tmp_path / "livesr.toml"
    config.write_text("[server]\nport = 0\nhost = '127.0.0.2'\n")
    serve = [sys.executable, "-m", "server", "serve", "--config", str(config)]
    assert not healthy()
    with subprocess.Popen(serve, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as service:
        try:
            assert service.stdout.readline()
            assert healthy()
        finally:
            service.terminate()
    assert not (tmp_path / "url").exists()


def test_the_image_has_the_hls_player_where_the_page_looks_for_it():
    (copy,) = (copy for copy in STAGES["build"].copies() if copy.stage == "page")
    asked = re.search(r'"/web/(vendor/\S+)"', (ROOT / PAGE / "hls.js").read_text())[1]
    assert copy.target == f"{PAGE}/{asked}"
    (source,) = copy.sources
    made = re.search(r"cp (\S+) \$@", (ROOT / "Makefile").read_text())[1]
    assert source.endswith(f"/{made}"), "as `make web` has it"


@images
def test_the_image_runs_the_service_as_a_user_that_it_has(image):
    made = [re.search(r"useradd --uid (\d+)", text) for name, text in image.every() if name == "RUN"]
    assert image.last("USER") in [found[1] for found in made if found]


@images
def test_what_the_image_writes_it_writes_into_volumes_of_its_user(image):
    """Its root is read-only."""
    volumes = json.loads(image.last("VOLUME"))
    environment = " ".join(text for name, text in image.every() if name == "ENV")
    artifacts = re.search(r"LIVESR_ARTIFACTS=(\S+)", environment)[1]
    made = next(text for name, text in image.every() if name == "RUN" and "--owner=livesr" in text)
    assert {str(PurePosixPath(artifacts).parent), "/var/lib/livesr"} == set(volumes)
    assert all(re.search(rf"--owner=livesr .*{volume}(\s|$)", made) for volume in volumes)


def test_compose_keeps_engines_where_the_gpu_image_builds_them():
    (volume, _) = json.loads(STAGES["gpu"].last("VOLUME"))
    assert f"artifacts:{volume}\n" in (ROOT / "deploy/compose.yaml").read_text()


def test_base_images_are_named_by_their_digests():
    arguments = re.findall(r"(?m)^ARG (\w+)=(\S+)$", (ROOT / "Dockerfile").read_text().partition("\nFROM")[0])
    assert {stage.base for stage in STAGES.values()} - set(STAGES) == {
        f"${{{name}}}" for name, _ in arguments
    }
    assert all(re.fullmatch(r"docker\.io/\S+:\S+@sha256:[0-9a-f]{64}", value) for _, value in arguments)
