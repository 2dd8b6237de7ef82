"""A folded half frame graph as a TensorRT engine: torch.export, then torch-tensorrt, as one strongly typed
network without a fallback to PyTorch.

TensorRT computes in the types that the graph has, so the graph is half throughout; only its planes are uint8.
Where the body is INT8, each of its convolutions is given a quantised and dequantised input and weight, which
TensorRT takes together for one INT8 kernel.

TensorRT and torch-tensorrt are imported where they are called: what is around a build is proved without them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, export

from engine.backends.tensorrt.request import Sizes
from engine.errors import BuildFailed
from engine.frame import Colour
from engine.net import Batch
from engine.network.checkpoint import Checkpoint
from engine.network.fold import fold
from engine.network.frame_net import FrameNet, frame_net
from engine.network.quantise import quantise

# Keywords that torch-tensorrt does not know it swallows without a word: a test compares these with its
# signature.
OPTIONS: dict[str, Any] = {
    "require_full_compilation": True,
    "min_block_size": 1,
    "immutable_weights": True,
    "workspace_size": 2 << 30,  # bytes; without a limit a build takes what memory the streams leave
}


def half_frame_net(checkpoint: Checkpoint, colour: Colour, calibration: Sequence[Batch] = ()) -> FrameNet:
    """`calibration`: inputs of the bare network; where there are any, its body computes in INT8."""
    net = fold(checkpoint.network())
    if calibration:
        net = quantise(net, calibration)
    return frame_net(net, checkpoint.config, colour, torch.float16)


def export_graph(net: FrameNet, sizes: Sizes, batches: Sequence[int] = (1,)) -> ExportedProgram:
    """The graph for frames of those sizes, so many at once."""
    width, height = sizes.typical
    batch = batches[-1]
    planes = (
        torch.zeros(batch, 1, height, width, dtype=torch.uint8),
        torch.zeros(batch, 2, height // 2, width // 2, dtype=torch.uint8),
    )
    y: dict[int, Any] = {}
    uv: dict[int, Any] = {}
    if batch > 1:
        y[0] = uv[0] = Dim("frames", min=1, max=batch)
    for axis, name, side in ((2, "h", 1), (3, "w", 0)):
        least, most = sizes.smallest[side] // 2, sizes.largest[side] // 2
        if least < most:
            uv[axis] = Dim(name, min=least, max=most)
            y[axis] = 2 * uv[axis]
    return export(net, planes, dynamic_shapes={"y": y, "uv": uv})


def compile_graph(
    graph: ExportedProgram,
    sizes: Sizes,
    batches: Sequence[int],
    timing_cache: Path,
    *,
    any_gpu: bool = False,
) -> bytes:
    """The serialized engine with a profile for each batch, for the current CUDA device, or with `any_gpu` for
    every GPU from Ampere on: one file for a mixed fleet, of kernels that suit none best. TensorRT reads
    `timing_cache` where it exists, and writes to it what it measures. Raises BuildFailed."""
    from torch_tensorrt.dynamo import convert_exported_program_to_serialized_trt_engine

    _register_uint8_cast()
    _register_int8_conv()
    try:
        with _profiles(sizes, batches):
            engine: bytes = convert_exported_program_to_serialized_trt_engine(
                graph,
                inputs=_inputs(sizes, batches),
                timing_cache_path=str(timing_cache),
                hardware_compatible=any_gpu,
                **OPTIONS,
            )
    except RuntimeError as exc:  # its text is the whole graph; that of its cause is a sentence
        reason = str(exc.__cause__ or exc).strip().partition("\n")[0]
        raise BuildFailed(f"torch-tensorrt can't compile the graph: {reason}") from exc
    return engine


def merge_timing_caches(kept: bytes, measured: bytes) -> bytes:
    """Both as one, by TensorRT; the later one where it can't combine them."""
    import tensorrt

    builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    config = builder.create_builder_config()
    merged, other = config.create_timing_cache(measured), config.create_timing_cache(kept)
    return bytes(memoryview(merged.serialize())) if merged.combine(other, False) else measured


def _inputs(sizes: Sizes, batches: Sequence[int]) -> list[Any]:
    import torch_tensorrt

    def planes(channels: int) -> Any:
        least, _, _ = _shapes(sizes, batches[0], channels)
        _, typical, most = _shapes(sizes, batches[-1], channels)
        if least == most:
            return torch_tensorrt.Input(shape=least, dtype=torch.uint8)
        return torch_tensorrt.Input(min_shape=least, opt_shape=typical, max_shape=most, dtype=torch.uint8)

    return [planes(1), planes(2)]


def _shapes(sizes: Sizes, batch: int, channels: int) -> list[tuple[int, ...]]:
    """Smallest, typical and largest, of luma (one channel) or chroma (two, of half the size)."""
    return [
        (batch, channels, height // channels, width // channels)
        for width, height in (sizes.smallest, sizes.typical, sizes.largest)
    ]


@contextmanager
def _profiles(sizes: Sizes, batches: Sequence[int]) -> Iterator[None]:
    """A profile for each batch in what is compiled meanwhile: torch-tensorrt makes only one, from the
    smallest input to the largest, and TensorRT chooses the kernels that suit one shape of each profile."""
    from torch_tensorrt.dynamo.conversion import _conversion

    plain: Any = _conversion.TRTInterpreter

    class Interpreter(plain):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.optimization_profiles = [self.builder.create_optimization_profile() for _ in batches]

        def placeholder(self, target: str, args: Any, kwargs: Any) -> Any:
            tensor = super().placeholder(target, args, kwargs)
            for profile, batch in zip(self.optimization_profiles, batches, strict=True):
                profile.set_shape(target, *_shapes(sizes.of_batch(batch), batch, tensor.shape[1]))
            return tensor

    if len(batches) > 1:
        _conversion.TRTInterpreter = Interpreter
    try:
        yield
    finally:
        _conversion.TRTInterpreter = plain


@cache
def _register_uint8_cast() -> None:
    """TensorRT casts to uint8 at a network's output, but torch-tensorrt has no converter for it."""
    import tensorrt
    from torch_tensorrt.dynamo.conversion import dynamo_tensorrt_converter

    def to_uint8(node: torch.fx.Node, settings: Any = None) -> bool:
        return node.kwargs.get("dtype") == torch.uint8

    def cast(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        layer = ctx.net.add_cast(args[0], tensorrt.uint8)
        layer.name = f"to uint8 - [{name}]"
        return layer.get_output(0)

    operator = torch.ops.aten._to_copy.default
    register = dynamo_tensorrt_converter(
        operator, capability_validator=to_uint8, supports_dynamic_shapes=True
    )
    register(cast)


@cache
def _register_int8_conv() -> None:
    import tensorrt
    from torch_tensorrt.dynamo.conversion import dynamo_tensorrt_converter

    def constant(ctx: Any, values: torch.Tensor, name: str) -> Any:
        array = values.detach().cpu().contiguous().numpy()
        ctx.kept = [*getattr(ctx, "kept", []), array]  # TensorRT reads it when it builds, and does not own it
        layer = ctx.net.add_constant(tuple(array.shape), tensorrt.Weights(array))
        layer.name = name
        return layer.get_output(0)

    def convert(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        x, weight, bias, input_scale, weight_scales, padding = args
        scale = constant(ctx, torch.tensor(input_scale, dtype=torch.float32), f"{name} input scale")
        levels = ctx.net.add_quantize(x, scale, tensorrt.int8)
        x = ctx.net.add_dequantize(levels.get_output(0), scale, x.dtype)
        scales = constant(ctx, torch.tensor(weight_scales, dtype=torch.float32), f"{name} weight scales")
        kernel = ctx.net.add_dequantize(constant(ctx, weight, f"{name} weight"), scales, tensorrt.float16)
        kernel.axis = 0
        conv = ctx.net.add_convolution_nd(
            x.get_output(0), weight.shape[0], tuple(weight.shape[2:]), tensorrt.Weights(), tensorrt.Weights()
        )
        conv.set_input(1, kernel.get_output(0))
        conv.set_input(2, constant(ctx, bias.half(), f"{name} bias"))
        conv.padding_nd = (padding, padding)
        for layer, what in ((levels, "quantise"), (x, "dequantise"), (kernel, "kernel"), (conv, "conv")):
            layer.name = f"{what} - [{name}]"
        return conv.get_output(0)

    operator = torch.ops.livesr.int8_conv.default
    dynamo_tensorrt_converter(operator, supports_dynamic_shapes=True)(convert)
