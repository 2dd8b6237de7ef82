"""The page on paper is what the command prints, and its costs are those of the real folded network."""

import pytest
import torch
from torch import nn

from engine.config import AwsrnConfig
from engine.measure.roofline import GPUS, PUBLISHED, folded_convs, frame_cost, models, page
from engine.network.awsrn import Awsrn
from engine.network.fold import fold
from tests.conftest import ROOT


def test_the_page_is_what_the_command_prints() -> None:
    text = (ROOT / "docs" / "roofline.md").read_text()
    assert text == page(), "write it anew: livesr roofline > docs/roofline.md"


@pytest.mark.parametrize("config", models().values(), ids=models())
def test_the_convolutions_are_those_of_the_folded_network(config: AwsrnConfig) -> None:
    real = [
        (conv.in_channels, conv.out_channels, conv.kernel_size[0])
        for conv in fold(Awsrn(config)).modules()
        if isinstance(conv, nn.Conv2d)
    ]
    assert sorted(folded_convs(config)) == sorted(real)
    cost = frame_cost(config, 640, 360)
    assert cost.multiply_adds == 640 * 360 * sum(i * o * k * k for i, o, k in real)


def test_the_bytes_are_those_that_a_forward_pass_moves() -> None:
    config = models()["live ×2 (n16 b32, 2 AWRU)"]
    moved = 0

    def count(conv: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved
        moved += 2 * (inputs[0].numel() + output.numel())

    net = fold(Awsrn(config))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    net(torch.zeros(1, 1, 36, 64))
    planes = 1.5 * 36 * 64 * 5
    cost = frame_cost(config, 64, 36)
    assert cost.plane_bytes == planes
    assert cost.layer_bytes == planes + moved


def test_no_published_engine_is_faster_than_the_peak() -> None:
    shares = [p.share_of_peak() for p in PUBLISHED]
    assert [s for s in shares if s is not None]
    assert all(s is None or 0 < s < 1 for s in shares)
    assert len({gpu.name for gpu in GPUS}) == 6
