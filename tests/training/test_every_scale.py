"""Scales that no model ships for: an AWSRN of four branches is trained, built, judged and used at each."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.config import AwsrnConfig
from server.__main__ import main
from tests.server.clips import write_clip
from training.data.pairs import DataConfig, PackedPairs
from training.judge.torch_upscale import torch_image
from training.networks import load_network
from training.quality import psnr
from training.recipes import short_recipe
from training.train import train


@pytest.mark.parametrize("scale", [3, 8])
def test_a_trained_network_comes_to_upscale(
    scale: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(1)
    for name in ("0.png", "1.png"):  # to calibrate on, and to measure parity on
        blocks = np.kron(rng.integers(0, 255, (12, 17, 3)), np.ones((16, 16, 1)))
        noisy = (blocks + rng.normal(0, 6, blocks.shape)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(photographs / name)
    config = AwsrnConfig(scale=scale, lfbs=1, awrus=1, features=8, block_features=8)
    recipe = replace(short_recipe(config, 4), batch=1, lr_patch=16)
    pairs = PackedPairs(DataConfig(folder=photographs, scale=scale), tmp_path / "cache", lr_patch=16)
    checkpoint = train(recipe, pairs=pairs, run=tmp_path / "run", validation=photographs).checkpoint

    built = str(tmp_path / "net.int8")
    assert main(["build", str(checkpoint), built, "--frames", str(photographs)]) == 0
    judged = ["evaluate", "--scale", str(scale), "--set", f"Blocks={photographs}", "--json"]
    assert main([*judged, "--model", built, "--model", str(checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores = [row["sets"]["Blocks"]["psnr_db"] for row in json.loads(lines[-1])]
    assert scores[0] == pytest.approx(scores[1], abs=0.5)

    small = np.asarray(Image.open(photographs / "0.png"))[:23, :37]
    Image.fromarray(small).save(tmp_path / "in.png")
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--model", built]) == 0
    loaded = load_network(checkpoint)
    expected = torch_image(loaded.network, loaded.config)(small)
    upscaled = np.asarray(Image.open(tmp_path / "out.png"))
    assert upscaled.shape == (23 * scale, 37 * scale, 3)
    assert psnr(upscaled.astype(np.float64), expected.astype(np.float64)) > 35

    clip, larger = write_clip(tmp_path / "in.mp4", width=80, height=48, frames=3), tmp_path / "out.mp4"
    assert main(["upscale", str(clip), str(larger), "--model", built, "--preset", "ultrafast"]) == 0
    with av.open(str(larger)) as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert frames == [(80 * scale, 48 * scale)] * 3
