"""The frame graphs become TensorRT engines, whole and in half: proved where there is no GPU."""

import inspect
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

if os.environ.get("TENSORRT_CHECK") != "1":
    pytest.skip("`make tensorrt-check` runs these, in an environment of their own", allow_module_level=True)

from engine.backends.tensorrt import export
from engine.backends.tensorrt.request import ANY_SIZE, Sizes
from engine.batches import BATCHES
from engine.config import AwsrnConfig, live_config, paper_config
from engine.errors import BuildFailed
from engine.frame import Colour
from engine.net import Batch
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import Checkpoint, load_checkpoint
from engine.network.fold import fold
from engine.network.frame_net import FrameNet, frame_net
from engine.shipped import shipped_checkpoint, zoo
from tests.engine.conftest import make_network
from tests.tensorrt.offline import CAPABILITIES, Built, compile_offline

# What PyTorch says of its own and torch-tensorrt's use of it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
]

SMALL = Sizes.only(48, 32)


def rgb_config(scale: int) -> AwsrnConfig:
    """The structure of the paper's networks, small."""
    return AwsrnConfig(scale=scale, lfbs=2, awrus=2, features=16, block_features=32)


def half(network: Awsrn, colour: Colour = Colour()) -> FrameNet:  # noqa: B008
    state = Checkpoint(config=network.config, state=network.state_dict(), provenance={})
    return export.half_frame_net(state, colour)


def planes(batch: int, width: int, height: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 256, (batch, 1, height, width), dtype=torch.uint8, generator=generator)
    uv = torch.randint(0, 256, (batch, 2, height // 2, width // 2), dtype=torch.uint8, generator=generator)
    return y, uv


def assert_whole_and_half(built: Built) -> None:
    """One engine of the whole graph, nothing left to PyTorch, no layer of it in float32. No cast is excepted:
    the graph goes from uint8 to half and back without a third type."""
    assert not built.missing
    assert built.convertible == built.operators
    assert built.partitions == (1, 0)
    assert not built.float32_layers
    assert [tensor.dtype for tensor in built.inputs + built.outputs] == ["UINT8"] * 4
    casts = {(x.inputs, x.outputs) for x in built.layers if x.kind == "CAST" and "INT64" not in x.inputs}
    assert casts == {(("UINT8",), ("HALF",)), (("HALF",), ("UINT8",))}
    convolutions = [layer for layer in built.layers if layer.kind == "CONVOLUTION"]
    assert convolutions
    assert {layer.inputs + layer.outputs for layer in convolutions} == {("HALF", "HALF")}
    assert built.engine


def assert_lowering_changed_nothing(net: FrameNet, built: Built, batch: int, width: int, height: int) -> None:
    frame = planes(batch, width, height)
    with torch.inference_mode():
        for ours, expected in zip(built.lowered(*frame), net(*frame), strict=True):
            assert torch.equal(ours, expected)


def cases() -> Iterator[object]:
    for scale in (2, 4):
        yield pytest.param(make_network(live_config(scale=scale)), Colour(), id=f"y-x{scale}")
        for colour in (Colour(), Colour(matrix="bt601", full_range=True)):
            network = make_network(rgb_config(scale))
            yield pytest.param(network, colour, id=f"rgb-x{scale}-{colour.matrix}")
    yield pytest.param(make_network(live_config(grid=2)), Colour(), id="half-y-x2")
    yield pytest.param(make_network(live_config(context=8)), Colour(), id="y-x2-context")
    for name in zoo():
        yield pytest.param(load_checkpoint(shipped_checkpoint(name)).network(), Colour(), id=name)


@pytest.mark.parametrize(("network", "colour"), list(cases()))
def test_a_frame_graph_becomes_one_engine_in_half(network: Awsrn, colour: Colour) -> None:
    net = half(network, colour)
    built = compile_offline(net, SMALL)
    assert_whole_and_half(built)
    assert_lowering_changed_nothing(net, built, 1, 48, 32)
    scale = network.config.scale
    assert [tensor.shape for tensor in built.inputs] == [(1, 1, 32, 48), (1, 2, 16, 24)]
    expected = [(1, 1, 32 * scale, 48 * scale), (1, 2, 16 * scale, 24 * scale)]
    assert [tensor.shape for tensor in built.outputs] == expected


EVERY_SIZE = [live_config(), live_config(grid=2, context=8), rgb_config(2)]


@pytest.mark.parametrize("config", EVERY_SIZE, ids=["y", "half-y", "rgb"])
def test_one_engine_takes_every_size(config: AwsrnConfig) -> None:
    net = half(make_network(config))
    built = compile_offline(net, ANY_SIZE)
    assert_whole_and_half(built)
    for width, height in ((64, 64), (70, 66)):
        assert_lowering_changed_nothing(net, built, 1, width, height)
    assert [t.shape for t in built.inputs + built.outputs] == 2 * [(1, 1, -1, -1), (1, 2, -1, -1)]


@pytest.mark.parametrize("config", [live_config(), rgb_config(2)], ids=["y", "rgb"])
def test_one_engine_has_a_profile_for_each_batch(config: AwsrnConfig) -> None:
    net = half(make_network(config))
    built = compile_offline(net, SMALL, BATCHES)
    assert_whole_and_half(built)
    for batch in (1, 3, 8):
        assert_lowering_changed_nothing(net, built, batch, 48, 32)
    assert [t.shape for t in built.inputs] == [(-1, 1, 32, 48), (-1, 2, 16, 24)]
    y, uv = (tensor.name for tensor in built.inputs)
    assert built.profiles == tuple(
        {y: 3 * [(batch, 1, 32, 48)], uv: 3 * [(batch, 2, 16, 24)]} for batch in BATCHES
    )


def test_an_engine_for_every_size_takes_batches_of_small_ones() -> None:
    net = half(make_network(live_config()))
    built = compile_offline(net, ANY_SIZE, ANY_SIZE.batches)
    assert_whole_and_half(built)
    assert_lowering_changed_nothing(net, built, 2, 72, 64)
    name = built.inputs[0].name
    ranges = [(profile[name][0], profile[name][2]) for profile in built.profiles]
    assert ranges == [
        ((1, 1, 64, 64), (1, 1, 1920, 1920)),
        ((2, 1, 64, 64), (2, 1, 1280, 1280)),
        ((4, 1, 64, 64), (4, 1, 904, 904)),
        ((8, 1, 64, 64), (8, 1, 640, 640)),
    ]


def test_an_engine_for_every_gpu_is_asked_for_as_such() -> None:
    """torch-tensorrt swallows what it doesn't know. What it does with this is TensorRT's: its offline builder
    builds for several GPUs by itself."""
    net = half(make_network(live_config()))
    assert not compile_offline(net, SMALL).any_gpu
    assert compile_offline(net, SMALL, any_gpu=True).any_gpu


def frames_for(config: AwsrnConfig) -> list[Batch]:
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 255, (1, config.channels, 32, 48)).astype(np.float32) for _ in range(2)]


def int8(network: Awsrn) -> FrameNet:
    state = Checkpoint(config=network.config, state=network.state_dict(), provenance={})
    return export.half_frame_net(state, Colour(), frames_for(network.config))


@pytest.mark.parametrize("sizes", [SMALL, ANY_SIZE], ids=["one size", "any size"])
@pytest.mark.parametrize("config", [live_config(), rgb_config(2)], ids=["y", "rgb"])
def test_the_body_becomes_int8_and_the_rest_stays_half(config: AwsrnConfig, sizes: Sizes) -> None:
    """Each convolution of the body is given integers, of its input and of its weights; no other is."""
    net = int8(make_network(config))
    built = compile_offline(net, sizes)
    assert not built.missing
    assert built.partitions == (1, 0)
    assert_lowering_changed_nothing(net, built, 1, 48 if sizes is SMALL else 64, 32 if sizes is SMALL else 64)
    convolutions = sum(1 for layer in built.layers if layer.kind == "CONVOLUTION")
    body = config.lfbs * (2 * config.awrus + 1)
    kinds = Counter(layer.kind for layer in built.layers)
    assert (kinds["QUANTIZE"], kinds["DEQUANTIZE"]) == (body, 2 * body)
    assert convolutions > body
    scales = {"FLOAT"}  # of quantisers; nothing else is in it
    for layer in built.float32_layers:
        assert layer.kind in ("QUANTIZE", "DEQUANTIZE", "CONSTANT"), layer
        assert set(layer.outputs) <= scales | {"INT8", "HALF"}
    assert built.engine


def test_the_papers_network_becomes_one_engine_at_its_real_size() -> None:
    built = compile_offline(half(make_network(paper_config("awsrn-sd", 2))), Sizes.only(640, 360))
    assert_whole_and_half(built)
    print(f"\nAWSRN-SD ×2 at 640×360 for {', '.join(CAPABILITIES)}: {len(built.engine):,} bytes")


@pytest.mark.parametrize("config", [live_config(), paper_config("awsrn-sd", 2)], ids=["y", "awsrn-sd"])
def test_folding_removes_layers(config: AwsrnConfig) -> None:
    network = make_network(config)
    folded = compile_offline(half(network), SMALL)
    unfolded = compile_offline(frame_net(network, config, Colour(), torch.float16), SMALL)

    def convolutions(built: Built) -> int:
        return sum(layer.kind == "CONVOLUTION" for layer in built.layers)

    print(
        f"\n{config.colour} ×{config.scale}: {len(unfolded.layers)} → {len(folded.layers)} layers, "
        f"{convolutions(unfolded)} → {convolutions(folded)} convolutions"
    )
    assert len(folded.layers) < len(unfolded.layers)
    assert convolutions(unfolded) - convolutions(folded) == len(config.kernels) - 1


def test_control_a_float32_graph_is_told_from_a_half_one() -> None:
    config = live_config()
    network = make_network(config)
    built = compile_offline(frame_net(fold(network), config, Colour(), torch.float32), SMALL)
    assert len(built.float32_layers) > 10
    with pytest.raises(AssertionError):
        assert_whole_and_half(built)


class OneLayerInFloat32(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(torch.sqrt(x.float()).to(x.dtype))
        return out


def test_control_one_float32_layer_in_a_half_graph_is_found() -> None:
    config = live_config()
    net = frame_net(OneLayerInFloat32(fold(make_network(config))), config, Colour(), torch.float16)
    built = compile_offline(net, SMALL)
    assert any(layer.kind == "UNARY" for layer in built.float32_layers)
    with pytest.raises(AssertionError):
        assert_whole_and_half(built)


class Unconvertible(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.digamma(self.net(x))
        return out


def test_control_an_operator_without_a_converter_is_refused() -> None:
    config = live_config()
    net = frame_net(Unconvertible(fold(make_network(config))), config, Colour(), torch.float16)
    with (
        pytest.warns(UserWarning, match="missing operations"),
        pytest.raises(BuildFailed, match=r"can't compile the graph: .*digamma not currently supported"),
    ):
        compile_offline(net, SMALL)


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timing_caches_are_merged_by_calls_that_tensorrt_has() -> None:
    """The offline builder times nothing, so that there is nothing to merge."""
    assert export.merge_timing_caches(b"", b"").startswith(b"ptrt")


def test_torch_tensorrt_knows_every_option_that_it_is_given() -> None:
    """It would take any other without a word, and ignore it."""
    # torch-tensorrt, which only `tests.tensorrt.offline` makes importable.
    from torch_tensorrt.dynamo import convert_exported_program_to_serialized_trt_engine as convert

    known = inspect.signature(convert).parameters
    assert {"inputs", "timing_cache_path", *export.OPTIONS} <= known.keys()
