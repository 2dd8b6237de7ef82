"""Artifacts: whole, or refused by the name of what is wrong; built only where the picture is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.artifact import LAYOUT, MANIFEST, open_artifact
from engine.build import build
from engine.config import live_config
from engine.errors import InvalidArtifact, ModelNotFound, ParityError
from engine.network.checkpoint import save_checkpoint
from engine.sample_frames import DEFAULT, sample_frames
from tests.engine.conftest import make_picture_network


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifacts") / "luma.float32"
    build(checkpoint, out, "float32", sample_frames(DEFAULT)[:2])
    return out


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    folder = tmp_path / artifact.name
    folder.mkdir()
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_manifest_says_what_it_is(artifact: Path, checkpoint: Path) -> None:
    fields = json.loads((artifact / MANIFEST).read_text())
    assert fields["precision"] == "float32"
    assert fields["backend"] == "openvino"
    assert fields["config"]["scale"] == 2
    assert fields["config"]["colour"] == "y"
    assert fields["parity_db"] >= 60
    assert fields["provenance"] == {"recipe": "none, for tests"}
    assert {"openvino", "torch", "livesr"} <= fields["tools"].keys()
    assert fields["files"].keys() == {"net.xml", "net.bin", "frame.xml", "frame.bin"}


def test_an_artifact_runs_without_pytorch(artifact: Path) -> None:
    program = f"""
import sys
import numpy as np
from engine.frame import YuvFrame
from engine.load import load_engine, load_net
from engine.net import upscale_image
import server.commands.bench, server.commands.doctor
lane = load_engine({str(artifact)!r}, width=32, height=16).lane()
grey = np.full((8, 16), 128, np.uint8)
lane.submit(YuvFrame(y=np.full((16, 32), 90, np.uint8), u=grey, v=grey))
assert lane.wait().y.shape == (32, 64)
net = load_net({str(artifact)!r})
assert upscale_image(net, np.zeros((9, 7, 3), np.uint8)).shape == (18, 14, 3)
heavy = {{"torch", "nncf", "safetensors"}} & sys.modules.keys()
assert not heavy, heavy
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """OpenVINO and NNCF send usage statistics by default, under an identity kept in the home folder."""
    program = """
import sys
import engine.backends.openvino.engine, engine.backends.openvino.quantise
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("name", ["net.bin", "net.xml", "frame.xml", "frame.bin"])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InvalidArtifact, match=rf"{name} is not the file that was built: its SHA-256"):
        open_artifact(copy)


@pytest.mark.parametrize("name", ["net.bin", "frame.xml"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InvalidArtifact, match=f"lacks {name}"):
        open_artifact(copy)


def test_a_manifest_must_list_every_graph(copy: Path) -> None:
    fields = json.loads((copy / MANIFEST).read_text())
    del fields["files"]["net.xml"]
    (copy / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(InvalidArtifact, match=r"lists no net\.xml"):
        open_artifact(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "livesr-artifact-1", "layout": 2}']
)
def test_an_unreadable_manifest(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(InvalidArtifact, match=r"manifest\.json is unreadable"):
        open_artifact(copy)


@pytest.mark.parametrize("layout", [None, 1, 3])
def test_graphs_of_another_layout_are_refused_in_a_sentence(copy: Path, layout: int | None) -> None:
    fields = json.loads((copy / MANIFEST).read_text())
    assert fields.pop("layout") == LAYOUT
    if layout is not None:
        fields["layout"] = layout
    fields["what only that layout has"] = True
    (copy / MANIFEST).write_text(json.dumps(fields))
    found = f"luma.float32 has graphs of layout {layout or 1}, where this version of livesr runs layout 2"
    with pytest.raises(InvalidArtifact, match=f"{found}: build it anew .* `livesr build`"):
        open_artifact(copy)


def test_no_artifact_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="absent does not exist"):
        open_artifact(tmp_path / "absent")
    with pytest.raises(InvalidArtifact, match=r"is no artifact: it has no manifest\.json"):
        open_artifact(tmp_path)


def test_a_network_that_int8_ruins_is_not_built(tmp_path: Path) -> None:
    """One feature ten thousand times the others: no 8-bit range holds both."""
    network = make_picture_network(live_config())
    head = network.head
    assert isinstance(head, torch.nn.Conv2d)
    weight = head.weight.clone()
    weight[0] *= 1e4
    head.weight = weight
    for alpha in network.tail.alphas.values():
        alpha *= 10
    save_checkpoint(tmp_path / "net.safetensors", network, {})
    out = tmp_path / "built" / "net.int8"
    with pytest.raises(ParityError, match=r"in int8 is -?\d+\.\d dB from .* must be at least 50 dB"):
        build(tmp_path / "net.safetensors", out, "int8", sample_frames(DEFAULT)[:4])
    assert list((tmp_path / "built").iterdir()) == []


def test_a_build_replaces_an_artifact_but_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    frames = sample_frames(DEFAULT)[:2]
    out = tmp_path / "net"
    build(checkpoint, out, "float32", frames)
    assert build(checkpoint, out, "float32", frames) == open_artifact(out)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    keep = tmp_path / "photos"
    keep.mkdir()
    (keep / "photo.png").write_bytes(b"dear")
    with pytest.raises(InvalidArtifact, match="photos exists and is no artifact"):
        build(checkpoint, keep, "float32", frames)
    assert (keep / "photo.png").read_bytes() == b"dear"
