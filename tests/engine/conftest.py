"""Networks to test on: untrained, but of the shapes and with the scalars that a trained one has."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import engine.backends  # noqa: F401  (before any test imports OpenVINO: it silences its telemetry)
from engine.config import AwsrnConfig, live_config
from engine.frame import YuvFrame
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import save_checkpoint

RGB_X3 = AwsrnConfig(scale=3, lfbs=2, awrus=2, features=16, block_features=16, kernels=(3, 7))


def make_network(config: AwsrnConfig, seed: int = 0) -> Awsrn:
    """Random weights; λ and α random of both signs, and a context that has seen pictures and matters."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = Awsrn(config).eval()
    for name, parameter in network.named_parameters():
        if "lambda" in name or "alpha" in name:
            sign = 1 if torch.rand(1, generator=generator) < 0.5 else -1
            parameter.data = sign * (0.3 + torch.rand(1, generator=generator))
    if config.context:
        network.shift.data.normal_(generator=generator)
        network.context.norm.running_mean.uniform_(1, 4, generator=generator)
        network.context.norm.running_var.uniform_(0.1, 0.5, generator=generator)
    return network.requires_grad_(False)


def make_picture_network(config: AwsrnConfig) -> Awsrn:
    """One whose output is its input, enlarged, give or take some levels: the skip repeats pixels."""
    network = make_network(config)
    assert isinstance(network.skip, torch.nn.Conv2d)
    assert network.skip.bias is not None
    network.skip.bias.zero_()
    weight = torch.zeros(config.channels, config.scale**2, config.channels, 3, 3)
    for channel in range(config.channels):
        # Green and blue become less and lighter, so that matrix and range matter.
        weight[channel, :, channel, 1, 1] = 1 - 0.2 * channel
        network.skip.bias[channel * config.scale**2 :] += 0.2 * channel
    network.skip.weight = weight.flatten(0, 1)
    for alpha in network.tail.alphas.values():
        alpha *= 0.02
    return network


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A luma network ×2."""
    path = tmp_path_factory.mktemp("models") / "luma.safetensors"
    save_checkpoint(path, make_picture_network(live_config()), {"recipe": "none, for tests"})
    return path


@pytest.fixture(scope="session")
def rgb_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RGB network ×3."""
    path = tmp_path_factory.mktemp("models") / "rgb.safetensors"
    save_checkpoint(path, make_picture_network(RGB_X3), {"recipe": "none, for tests"})
    return path


@pytest.fixture
def noise() -> Callable[..., YuvFrame]:
    """Frames of random planes: noise(width, height, seed)."""

    def make(width: int, height: int, seed: int = 0) -> YuvFrame:
        rng = np.random.default_rng(seed)
        shapes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
        y, u, v = (rng.integers(0, 256, shape, np.uint8) for shape in shapes)
        return YuvFrame(y=y, u=u, v=v)

    return make
