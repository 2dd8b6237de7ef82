"""Packing changes a network's numbers by rounding only: every scale, odd sizes and borders included."""

import pytest
import torch
from torch import Tensor, nn

from engine.config import AwsrnConfig, live_config, paper_config
from engine.network.fold import FoldedLfb, fold
from engine.network.pack import SummedLfb, pack, unpack
from engine.network.packed_conv import PackedConv, best_positions, pack_conv
from tests.engine.conftest import RGB_X3, make_network

LOSSLESS = 1e-3  # on the 0-255 scale
SIZES = [(16, 20), (13, 17), (16, 17), (13, 20), (1, 1)]


def noise(channels: int, height: int, width: int) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("positions", [1, 2, 3])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_packed_positions_are_the_convolutions_own(
    scale: int, positions: int, kernel: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 2 * scale**2, kernel, padding=kernel // 2).requires_grad_(False)
    packed = pack_conv(conv, scale, positions).requires_grad_(False)
    x = noise(4, *size)
    height, width = (scale * side for side in size)
    out = packed(x)
    assert out.shape[2:] == (-(-size[0] // positions), -(-size[1] // positions))
    expected = nn.functional.pixel_shuffle(conv(x), scale)
    torch.testing.assert_close(unpack(out, scale * positions, height, width), expected, atol=1e-5, rtol=0)


def test_a_filter_that_steps_is_packed_alike() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, (8, 7), stride=2, bias=False).requires_grad_(False)
    x = noise(2, 30, 28)
    expected = conv(x)
    out = unpack(pack_conv(conv, 1, 2)(x), 2, *expected.shape[2:])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "config",
    [
        *(live_config(scale=scale) for scale in (2, 3, 4, 8)),
        *(live_config(scale=scale, grid=2, features=32) for scale in (2, 3)),
        live_config(grid=2, context=8),
        RGB_X3,
        paper_config("awsrn-sd", 2),
        paper_config("awsrn-s", 4),
    ],
    ids=[
        "y×2",
        "y×3",
        "y×4",
        "y×8",
        "half y×2",
        "half y×3",
        "half y×2 with context",
        "rgb×3",
        "awsrn-sd×2",
        "awsrn-s×4",
    ],
)
def test_a_packed_network_is_the_network(config: AwsrnConfig, size: tuple[int, int]) -> None:
    folded = fold(make_network(config))
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    packed = pack(folded)
    x = 255 * torch.rand(2, config.channels, *size, generator=torch.Generator().manual_seed(1))
    height, width = (config.scale * side for side in size)
    assert (unpack(packed(x), packed.block, height, width) - folded(x)).abs().max() <= LOSSLESS
    for name, tensor in folded.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed by packing"


def test_the_lrfu_is_the_sum_of_its_slices_beside_a_shortcut_of_any_weight() -> None:
    lfb = fold(make_network(paper_config("awsrn-s", 2))).body[0]
    assert isinstance(lfb, FoldedLfb)
    x = noise(32, 13, 17)
    for shortcut in (1.0, -0.37):
        lfb.shortcut = shortcut
        summed = SummedLfb(lfb)
        assert len(summed.lrfus) == 4
        torch.testing.assert_close(summed(x), lfb(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "block"),
    [
        (live_config(), 4),
        (live_config(scale=4), 4),
        (live_config(scale=3), 3),
        (live_config(grid=2), 4),
        (paper_config("awsrn-sd", 2), 4),
    ],
    ids=["y×2", "y×4", "y×3", "half y×2", "awsrn-sd×2"],
)
def test_only_what_leaves_lanes_empty_is_packed(config: AwsrnConfig, block: int) -> None:
    packed = pack(fold(make_network(config)))
    assert packed.block == block
    assert isinstance(packed.tail, PackedConv)
    assert packed.tail.out_channels == config.channels * block**2


def test_an_only_channel_is_packed_and_sixteen_are_not() -> None:
    assert best_positions(nn.Conv2d(16, 1, 3, padding=1), 1) == 2
    assert best_positions(nn.Conv2d(16, 16, 3, padding=1), 4) == 1
