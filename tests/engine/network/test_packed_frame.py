"""A packed frame graph gives the planes of the plain one, read in another order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.config import AwsrnConfig, live_config, paper_config
from engine.frame import Colour, YuvFrame
from engine.network.fold import fold
from engine.network.frame_net import frame_net
from engine.network.pack import pack, unpack
from engine.network.packed_frame import packed_frame_net
from tests.engine.conftest import RGB_X3, make_picture_network

LIMITED, FULL = Colour(matrix="bt601"), Colour(full_range=True)


def block_of(packed: Tensor, planes: int) -> int:
    return round((packed.shape[1] / planes) ** 0.5)


@pytest.mark.parametrize("size", [(48, 32), (50, 34), (16, 18)], ids=str)
@pytest.mark.parametrize(
    ("config", "colour"),
    [
        *((live_config(scale=scale), LIMITED) for scale in (2, 3, 4, 8)),
        (live_config(grid=2, context=8), LIMITED),
        (RGB_X3, LIMITED),
        (RGB_X3, FULL),
        (paper_config("awsrn-sd", 2), LIMITED),
    ],
    ids=["y×2", "y×3", "y×4", "y×8", "half y×2 with context", "rgb×3", "rgb×3 full", "awsrn-sd×2"],
)
def test_planes_are_those_of_the_frame_graph(
    config: AwsrnConfig, colour: Colour, size: tuple[int, int], noise: Callable[..., YuvFrame]
) -> None:
    net = fold(make_picture_network(config))
    frame = noise(*size)
    y = torch.from_numpy(frame.y)[None, None]
    uv = torch.stack([torch.from_numpy(frame.u), torch.from_numpy(frame.v)])[None]
    expected = frame_net(net, config, colour)(y, uv)
    outputs = packed_frame_net(pack(net), config, colour)(y, uv)
    for packed, plane in zip(outputs, expected, strict=True):
        assert packed.dtype == torch.uint8
        channels_first = packed.permute(0, 3, 1, 2)
        block = block_of(channels_first, plane.shape[1])
        out = unpack(channels_first.float(), block, *plane.shape[2:])
        difference = (out - plane.float()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3  # where the fifth digit decides the rounding
