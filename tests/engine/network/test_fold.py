"""Folding changes a network's numbers by rounding only, borders included."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.config import AwsrnConfig, live_config, paper_config
from engine.network.awsrn import AWMS, AWRU, LFB, Awsrn
from engine.network.checkpoint import load_released
from engine.network.fold import FoldedAwru, fold, fold_awru, fold_lfb, merge_awms, plain_conv
from tests.conftest import shared
from tests.engine.conftest import RGB_X3, make_network

ODD = (1, 16, 13, 17)
LOSSLESS = 1e-3  # on the 0-255 scale


def features(seed: int = 0) -> Tensor:
    return torch.randn(ODD, generator=torch.Generator().manual_seed(seed))


def body() -> LFB:
    block = make_network(live_config()).body[0]
    assert isinstance(block, LFB)
    return block


def test_weight_norm_becomes_plain_weights() -> None:
    conv = body().lrfu
    x = torch.cat([features(0), features(1)], dim=1)
    plain = plain_conv(conv)
    assert not torch.nn.utils.parametrize.is_parametrized(plain)
    torch.testing.assert_close(plain(x), conv(x), atol=1e-5, rtol=0)


def test_lambdas_leave_an_awru_for_its_convolutions_and_the_streams_scale() -> None:
    awru = body().awrus[0]
    assert isinstance(awru, AWRU)
    scale = -1.7
    folded, scale_out = fold_awru(awru, scale)
    assert folded.shortcut == 1.0
    assert scale_out == pytest.approx(scale * awru.lambda_x.item())
    torch.testing.assert_close(scale_out * folded(features()), awru(scale * features()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lambda_x", [0.0, 1e-6, -1e5])
def test_a_lambda_that_would_divide_by_almost_nothing_stays(lambda_x: float) -> None:
    awru = body().awrus[0]
    assert isinstance(awru, AWRU)
    awru.lambda_x.fill_(lambda_x)
    folded, scale_out = fold_awru(awru, 1.0)
    assert scale_out == 1.0
    torch.testing.assert_close(folded(features()), awru(features()), atol=1e-5, rtol=1e-6)


def test_the_lrfu_takes_each_units_own_scale() -> None:
    lfb = body()
    folded, scale_out = fold_lfb(lfb, 0.6)
    torch.testing.assert_close(scale_out * folded(features()), lfb(0.6 * features()), atol=1e-5, rtol=0)


def test_awms_branches_become_one_convolution_of_the_largest_kernel() -> None:
    awms = make_network(RGB_X3).tail
    assert isinstance(awms, AWMS)
    merged = merge_awms(awms)
    assert merged.kernel_size == (7, 7)
    shuffled = nn.functional.pixel_shuffle(merged(features()), 3)
    torch.testing.assert_close(shuffled, awms(features()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        live_config(),
        live_config(scale=4),
        live_config(grid=2),
        live_config(context=8),
        RGB_X3,
        paper_config("awsrn-sd", 2),
    ],
    ids=["y×2", "y×4", "half y×2", "y×2 with context", "rgb×3", "awsrn-sd×2"],
)
def test_a_folded_network_is_the_network(config: AwsrnConfig) -> None:
    network = make_network(config)
    x = 255 * torch.rand(2, config.channels, 19, 23, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold(network)
    assert (folded(x) - network(x)).abs().max() <= LOSSLESS
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed by folding"


def test_what_remains_is_conv_relu_add_concat_and_one_shuffle() -> None:
    folded = fold(make_network(paper_config("awsrn-sd", 2)))
    leaves = [type(m) for m in folded.modules() if not list(m.children())]
    assert set(leaves) == {nn.Conv2d, nn.ReLU, nn.PixelShuffle}
    assert leaves.count(nn.PixelShuffle) == 1
    assert all(m.shortcut == 1.0 for m in folded.modules() if isinstance(m, FoldedAwru))


@pytest.mark.parametrize("name", ["awsrn_s_x2", "awsrn_sd_x3"])
def test_released_networks_give_the_released_outputs_folded(name: str) -> None:
    folder = shared("parity")
    network: Awsrn = load_released(folder / f"{name}.pt").network()
    rgb = torch.from_numpy(np.load(folder / "input_u8.npy")).permute(2, 0, 1)[None].float()
    output = fold(network)(rgb).numpy()
    assert np.abs(output - np.load(folder / f"{name}_out.npy").reshape(output.shape)).max() <= LOSSLESS
