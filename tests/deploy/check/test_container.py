"""The image for the CPU, built and run: its size, its start, its health, what signals do, what is in it."""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg

from loadtest.http import ServerError
from loadtest.viewer import Viewer
from tests.conftest import ROOT
from tests.deploy.check.images import IMAGE, Images
from tests.peers.service import until
from tests.ports import free_port

MAX_BYTES = 450e6
PATIENCE_S = 60
INSIDE = Path("/etc/livesr/livesr.toml")
SIZE = (1280, 720)
LOADS_ALL = """
import av, cryptography, numpy, openvino, PIL
import ctypes, pathlib
for file in pathlib.Path("/opt/livesr/lib").rglob("*.so*"):
    ctypes.CDLL(str(file))
print(openvino.Core().available_devices)
"""


def served(settings: Path, port: int) -> list[str]:
    """For whoever is on this machine, without a token."""
    return ["serve", "--config", str(settings), "--host", "127.0.0.1", "--port", str(port)]


def inspected(images: Images) -> dict:
    (image,) = json.loads(images.run("podman", "image", "inspect", IMAGE))
    return image


def test_it_is_as_small_as_promised(images: Images) -> None:
    size = inspected(images)["Size"]
    print(f"\nimage: {size / 1e6:.0f} MB")
    assert size <= MAX_BYTES


def test_it_has_labels_a_user_and_a_health_check(images: Images) -> None:
    image = inspected(images)
    labels = image["Labels"]
    assert labels["org.opencontainers.image.version"] == "0-check"
    assert labels["org.opencontainers.image.revision"] == "tree"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image["User"] == "1000"
    assert image["Healthcheck"]["Test"][0] == "CMD"


def test_what_was_left_out_and_stripped_is_not_missed(images: Images) -> None:
    with images.started("-c", LOADS_ALL, options="--network none --entrypoint python3") as container:
        until(lambda: container.state()["Status"] == "exited", "it has loaded everything")
        assert container.state()["ExitCode"] == 0, container.log()
        assert container.log().strip() == "['CPU']"


async def first_picture(url: str) -> tuple[int, int]:
    """Its size, as a viewer decodes it who asks until there is one."""
    sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    decoder = av.CodecContext.create("h264", "r")

    def decode(data: bytes, at_s: float) -> None:
        for frame in decoder.decode(av.Packet(data)):
            sizes.put_nowait((frame.width, frame.height))

    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        viewer = Viewer(url, "demo", decode)
        try:
            await viewer.join()
            return await sizes.get()
        except ServerError:
            await asyncio.sleep(0.02)
        finally:
            await viewer.leave()
    raise TimeoutError(f"no picture within {PATIENCE_S} s")


def test_a_viewer_soon_sees_the_upscaled_demo(images: Images, monkeypatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    settings = images.folder / "cold.toml"
    settings.write_text(
        (ROOT / "deploy/demo.toml").read_text() + '[webrtc]\nhost_addresses = ["127.0.0.1"]\n'
    )
    # What the container adds is its ratio to the same service without one: this machine may do other things.
    bare_port, started_s = free_port(), time.monotonic()
    bare = subprocess.Popen([sys.executable, "-m", "server", *served(settings, bare_port)], cwd=ROOT)
    try:
        assert asyncio.run(first_picture(f"http://127.0.0.1:{bare_port}/")) == SIZE
        bare_s = time.monotonic() - started_s
    finally:
        bare.terminate()
        bare.wait(PATIENCE_S)
    started_s = time.monotonic()
    mount = f"--network host -v {settings}:/etc/livesr/livesr.toml:ro"
    with images.started(*served(INSIDE, port), options=mount) as container:
        assert asyncio.run(first_picture(url)) == SIZE
        took_s = time.monotonic() - started_s
        print(
            f"\ncold start, from `podman run` to the first upscaled picture at a viewer: {took_s:.1f} s;"
            f" without a container {bare_s:.1f} s"
        )
        with urllib.request.urlopen(f"{url}api/streams/demo", timeout=10) as answer:
            shown = json.load(answer)
        assert shown["state"] == "running", container.log()
    assert took_s < PATIENCE_S


def test_it_serves_the_demo_to_an_hls_player(images: Images) -> None:
    port = free_port()
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    with images.started(*served(INSIDE, port)):

        def played() -> str:
            source = f"http://127.0.0.1:{port}/hls/demo/media.m3u8"
            done = subprocess.run(
                [ffmpeg, "-hide_banner", "-i", source, "-frames:v", "50", "-f", "null", "-"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            return done.stderr if done.returncode == 0 else ""

        said = until(played, "ffmpeg has read 50 frames", 90)
        assert re.search(r"Video: h264.* 1280x720", said), said
        assert re.findall(r"frame= *(\d+)", said)[-1] == "50"


def test_as_it_is_it_is_healthy_reloads_and_stops_in_time(images: Images) -> None:
    """With the image's own command, in a network of its own."""
    with images.started(options="--network none") as container:
        healthy = ("podman", "healthcheck", "run", container.name)
        until(lambda: images.tried(*healthy).returncode == 0, "its health check says it is well")
        assert re.search(r"#token=livesr_\S+", container.log()), "an admin token for whoever started it"
        assert container.execute("cat", "/proc/1/comm") == "tini"
        assert re.search(r"CapEff:\s*0+$", container.execute("cat", "/proc/self/status"), re.MULTILINE)
        images.run("podman", "kill", "--signal", "HUP", container.name)
        until(lambda: "settings" in container.log().rpartition("#token")[2], "it reads its settings again")
        images.run("podman", "stop", "-t", "20", container.name)
        assert container.state()["ExitCode"] == 0, container.log()
        assert "service ends" in container.log()


def test_the_bill_of_materials_names_what_is_in_it(
    images: Images, tool: Callable[..., str], tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    images.run("podman", "save", "--format", "oci-archive", "-o", archive, IMAGE)
    made = json.loads(tool("syft", "scan", f"oci-archive:{archive}", "-o", "syft-json"))
    archive.unlink()
    found = {artifact["name"]: artifact["version"] for artifact in made["artifacts"]}
    pinned = dict(re.findall(r"(?m)^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    for name in ("openvino", "av", "aiortc", "numpy"):
        assert found[name] == pinned[name]
    assert "torch" not in found
    assert "pip" not in found
