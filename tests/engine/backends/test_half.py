"""The frame graph in half precision, as it runs on a GPU: the same arithmetic on the CPU against float32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.artifact import colours
from engine.config import AwsrnConfig, ColourKind, live_config
from engine.errors import BackendUnavailable
from engine.frame import Colour, EngineSpec, YuvFrame
from engine.load import load_engine
from engine.net import Batch
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import load_checkpoint
from engine.network.fold import FoldedAwsrn, fold
from engine.network.frame_net import FrameNet, frame_net
from engine.network.quantise import Int8Conv, quantise
from engine.parity import LOWEST_DB, parity_db
from engine.sample_frames import DEFAULT, sample_frames
from engine.shipped import shipped_checkpoint, zoo
from tests.engine.conftest import make_picture_network

WIDTH, HEIGHT = 48, 32  # most CPUs have no half arithmetic: a convolution takes seconds
# The structure of the paper's networks, small.
RGB = [
    AwsrnConfig(scale=scale, lfbs=1, awrus=2, features=8, block_features=16, kernels=(3, 5, 7, 9))
    for scale in (2, 4)
]


class Lane:
    def __init__(self, net: FrameNet) -> None:
        self.net = net

    def submit(self, frame: YuvFrame) -> None:
        self.planes = torch.tensor(frame.y)[None, None], torch.tensor(np.stack([frame.u, frame.v]))[None]

    def wait(self) -> YuvFrame:
        y, uv = self.net(*self.planes)
        return YuvFrame(y=y[0, 0].numpy(), u=uv[0, 0].numpy(), v=uv[0, 1].numpy())


class Engine:
    """Either form of a network behind the seam that `parity_db` measures through."""

    def __init__(self, net: FrameNet, scale: int) -> None:
        self.spec = EngineSpec(
            model="half",
            backend="reference",
            precision="fp16",
            colour=net.kind,
            scale=scale,
            width=WIDTH,
            height=HEIGHT,
            macs_per_frame=0,
            parity_db=None,
            checkpoint_sha256="",
        )
        self.net = net

    def lane(self) -> Lane:
        return Lane(self.net)


def frames() -> list[YuvFrame]:
    """The middle of real frames."""
    x, y = 136, 74

    def middle(frame: YuvFrame) -> YuvFrame:
        planes = ((frame.y, x, y, 1), (frame.u, x // 2, y // 2, 2), (frame.v, x // 2, y // 2, 2))
        return YuvFrame(
            **{
                name: np.ascontiguousarray(plane[top : top + HEIGHT // half, left : left + WIDTH // half])
                for name, (plane, left, top, half) in zip("yuv", planes, strict=True)
            }
        )

    return [middle(sample.yuv()) for sample in sample_frames(DEFAULT)[:3]]


def assert_half_is_close(network: Awsrn, colour: Colour) -> None:
    config = network.config
    half = Engine(frame_net(fold(network), config, colour, torch.float16), config.scale)
    reference = Engine(frame_net(network, config, colour), config.scale)
    *judged, last = frames()
    parity = parity_db(half, reference, judged)
    assert parity >= LOWEST_DB["fp16"], f"{config} in {colour}: {parity:.1f} dB"
    ours, theirs = half.lane(), reference.lane()
    for lane in (ours, theirs):
        lane.submit(last)
    out, expected = ours.wait(), theirs.wait()
    for plane, other in ((out.u, expected.u), (out.v, expected.v)):
        assert np.abs(plane.astype(int) - other).max() <= 2


@pytest.mark.parametrize("model", zoo())
def test_every_shipped_model_keeps_its_picture_in_half(model: str) -> None:
    assert_half_is_close(load_checkpoint(shipped_checkpoint(model)).network(), Colour())


@pytest.mark.parametrize("scale", [2, 4])
def test_a_luma_network_keeps_its_picture_in_half(scale: int) -> None:
    assert_half_is_close(make_picture_network(live_config(scale=scale)), Colour())


@pytest.mark.parametrize(
    ("config", "colour"), [(RGB[0], colour) for colour in colours("rgb")] + [(RGB[1], Colour())], ids=str
)
def test_an_rgb_network_keeps_its_picture_in_half(config: AwsrnConfig, colour: Colour) -> None:
    assert_half_is_close(make_picture_network(config), colour)


def calibration(kind: ColourKind) -> list[Batch]:
    """The middle of those frames that parity is not measured on."""
    inputs = (sample.net_input(kind) for sample in sample_frames(DEFAULT)[1:7:2])
    return [np.ascontiguousarray(x[:, :, 50:130, 100:220]) for x in inputs]


@pytest.mark.parametrize("model", ["awsrn-live-x2", "awsrn-live-large-x4"])
def test_the_body_in_int8_keeps_the_picture(model: str) -> None:
    """By the arithmetic that TensorRT is told: 8-bit integers times their scales, summed up exactly."""
    network = load_checkpoint(shipped_checkpoint(model)).network()
    config, folded = network.config, fold(network)
    reference = Engine(frame_net(network, config, Colour()), config.scale)

    def parity(net: FoldedAwsrn) -> float:
        half = Engine(frame_net(net, config, Colour(), torch.float16), config.scale)
        return parity_db(half, reference, [frames()[0], frames()[2]])

    quantised = quantise(folded, calibration(config.colour))
    assert parity(quantised) >= LOWEST_DB["int8"]
    for conv in quantised.modules():
        if isinstance(conv, Int8Conv):
            assert conv.weight.dtype == torch.int8
            conv.input_scale *= 40
    assert parity(quantised) < LOWEST_DB["int8"], "control: ranges that are far too wide"


@pytest.mark.parametrize("config", [live_config(), RGB[0]], ids=["y", "rgb"])
def test_frames_of_a_batch_do_not_see_each_other(config: AwsrnConfig) -> None:
    net = frame_net(fold(make_picture_network(config)), config, Colour(), torch.float16)
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 256, (3, 1, 16, 24), dtype=torch.uint8, generator=generator)
    uv = torch.randint(0, 256, (3, 2, 8, 12), dtype=torch.uint8, generator=generator)
    together = net(y, uv)
    for i in range(3):
        alone = net(y[i : i + 1], uv[i : i + 1])
        for batch, single in zip(together, alone, strict=True):
            difference = batch[i : i + 1].int() - single.int()
            assert difference.abs().max() <= 1  # a kernel may sum a batch in another order


def test_a_half_graph_leaves_the_network_it_was_made_of_alone() -> None:
    net = fold(make_picture_network(live_config()))
    half = frame_net(net, net.config, Colour(), torch.float16)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_openvino_refuses_half_in_one_sentence(checkpoint: Path) -> None:
    with pytest.raises(BackendUnavailable, match="not in fp16"):
        load_engine(checkpoint, width=32, height=32, backend="openvino", precision="fp16")
