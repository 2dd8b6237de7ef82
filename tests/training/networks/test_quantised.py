"""Quantisation-aware training rounds as the INT8 artifact does, and leaves an ordinary checkpoint."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from PIL import Image

from engine.artifact import open_artifact
from engine.config import live_config
from engine.network.checkpoint import load_checkpoint
from engine.network.fold import fold
from engine.network.pack import pack, unpack
from engine.sample_frames import DEFAULT, sample_frames
from engine.shipped import shipped_artifact, shipped_checkpoint
from server.__main__ import main
from training.data.pairs import DataConfig, PackedPairs
from training.networks import build_network, load_network, named_config, quantise_aware, without_quantisers
from training.recipes import short_recipe
from training.train import train

MODEL = "awsrn-live-x2"


@pytest.mark.parametrize("model", [MODEL, "awsrn-live-light-x2"])
def test_a_network_rounds_where_its_artifact_does(model: str) -> None:
    """One quantiser too few or too many, the tail's say, or a range for all of a kernel, moves the distance
    from float32 by 1.5 dB or more."""
    checkpoint = load_checkpoint(shipped_checkpoint(model))
    exact, artifact = checkpoint.network(), open_artifact(shipped_artifact(model, "int8"))
    # What is not INT8 in float32 as well: on a CPU it would be BF16.
    int8 = ov.Core().compile_model(artifact.net, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    frames = [torch.from_numpy(frame.net_input("y")) for frame in sample_frames(DEFAULT)]
    quantised = quantise_aware(copy.deepcopy(exact), frames[::2])
    differences_db = []
    with torch.inference_mode():
        for frame in frames[1:6:2]:
            sr = exact(frame)
            packed = torch.from_numpy(int8(frame.numpy())[0].copy())
            theirs = unpack(packed, pack(fold(exact)).block, *sr.shape[2:])
            errors = [float(((x - sr) ** 2).mean()) for x in (quantised(frame), theirs)]
            differences_db.append(10 * np.log10(errors[0] / errors[1]))
    assert abs(np.median(differences_db)) < 0.8

    plain = without_quantisers(quantised, build_network(checkpoint.config))
    for name, weight in exact.state_dict().items():
        assert torch.equal(plain.state_dict()[name], weight), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    (folder / "hr").mkdir()
    noise = np.random.default_rng(1).integers(0, 255, (112, 128, 3), np.uint8)
    Image.fromarray(noise).save(folder / "hr" / "noise.png")
    return folder


def test_a_run_goes_on_bit_by_bit_and_leaves_an_ordinary_checkpoint(folder: Path) -> None:
    pairs = PackedPairs(DataConfig(folder=folder / "hr", scale=2), folder / "cache", lr_patch=16)
    recipe = replace(short_recipe(live_config(), 4), batch=1, lr_patch=16, qat=True)
    initial = load_network(shipped_checkpoint(MODEL))
    for run, stops in (("whole", [None]), ("broken", [2, None])):
        for stop_after in stops:
            train(recipe, pairs=pairs, run=folder / run, initial=initial, stop_after=stop_after)
    whole, broken = (load_checkpoint(folder / run / "checkpoint.safetensors") for run in ("whole", "broken"))
    assert whole.provenance["recipe"]["qat"]
    begun = initial.network.state_dict()
    for name, weight in whole.state.items():
        assert torch.equal(weight, broken.state[name]), name
        assert not torch.equal(weight, begun[name]), f"{name} has not learnt"


def test_what_can_not_be_trained_so_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(folder / "hr"), "--out", str(folder / "refused")]
    assert main(["train", "short", "--model", "live", "--qat", *data]) == 2
    assert "--qat goes on from a trained network: --initial must be given" in capsys.readouterr().err
    with pytest.raises(ValueError, match="qat excludes bf16 and collapsible"):
        replace(short_recipe(live_config()), qat=True, bf16=True)
    with pytest.raises(ValueError, match="qat is for networks that have an INT8 artifact, Vdsr has none"):
        quantise_aware(build_network(named_config("vdsr", 2)), [])
