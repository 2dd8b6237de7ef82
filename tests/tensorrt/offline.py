"""TensorRT without a GPU: the production's own compile function, with NVIDIA's offline builder at its end.

What is real: torch.export, torch-tensorrt's lowering and converters, and the builder of TensorRT for RTX,
which compiles kernels ahead of time for the compute capabilities that it is given. What is not: the CUDA
device whose properties torch-tensorrt asks for, and TensorRT itself, whose Python API TensorRT for RTX
shares. The engine can't be deserialised here, let alone run.

This reaches into private parts of both packages, so their versions are pinned and checked; and it changes
`torch.cuda` for the whole process, so that only `make tensorrt-check` imports it.
"""

import copy
import importlib.metadata
import tempfile
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx

from engine.backends.tensorrt import export
from engine.backends.tensorrt.request import Sizes
from engine.network.frame_net import FrameNet

PINNED = {"torch-tensorrt": "2.13.0", "tensorrt-rtx": "1.7.1.116"}
# A100, A10, L4 and RTX 4090, RTX 5090. The builder offers none for 9.0, the H100's.
CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")


def _import_without_gpu() -> None:
    """Lets torch-tensorrt be imported: answers what it asks of the driver, and makes it take TensorRT for RTX
    for TensorRT, as it does by itself where it is installed under its other name."""
    for package, pinned in PINNED.items():
        found = importlib.metadata.version(package)
        assert found == pinned, f"{package} is {found}, must be {pinned}"
    properties = types.SimpleNamespace(
        name="none", major=8, minor=9, total_memory=24 << 30, multi_processor_count=58
    )
    torch.cuda.get_device_capability = lambda device=None: (8, 9)
    torch.cuda.get_device_properties = lambda device=None: properties  # type: ignore[assignment,return-value]
    torch.cuda.current_device = lambda: 0
    torch.cuda.mem_get_info = lambda device=None: (24 << 30, 24 << 30)
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = type("_CudaDeviceProperties", (), {})
    packages = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = lambda: {
        **packages(),
        "torch_tensorrt": ["torch-tensorrt-rtx"],
    }
    try:
        importlib.import_module("torch_tensorrt")
    finally:
        importlib.metadata.packages_distributions = packages


_import_without_gpu()

import tensorrt_rtx as trt  # noqa: E402
from torch_tensorrt.dynamo import partitioning  # noqa: E402
from torch_tensorrt.dynamo.conversion import _conversion  # noqa: E402
from torch_tensorrt.dynamo.conversion._TRTInterpreter import (  # noqa: E402
    TRTInterpreter,
    TRTInterpreterResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of TensorRT's network; types are of what goes in and out, as TensorRT names them."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of one graph on its way to an engine. `missing`: operators without a converter.
    `partitions`: how many engines, and how many parts left to PyTorch, torch-tensorrt would make of it if it
    were free to."""

    lowered: fx.GraphModule = field(repr=False)
    operators: int
    convertible: int
    missing: frozenset[str]
    partitions: tuple[int, int]
    layers: tuple[Layer, ...] = field(repr=False)
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    profiles: tuple[dict[str, list[tuple[int, ...]]], ...]  # of each input: smallest, typical, largest shape
    any_gpu: bool
    engine: bytes = field(repr=False)

    @property
    def float32_layers(self) -> list[Layer]:
        return [layer for layer in self.layers if "FLOAT" in layer.inputs + layer.outputs]


def compile_offline(
    net: FrameNet, sizes: Sizes, batches: Sequence[int] = (1,), *, any_gpu: bool = False
) -> Built:
    """Through `export_graph` and `compile_graph`, as on a GPU. Raises what they raise."""
    built: list[Built] = []

    class Interpreter(TRTInterpreter):  # type: ignore[misc]
        """Builds for several GPUs at once and keeps what it saw; the real one builds on the GPU."""

        def run(self, *_: Any) -> TRTInterpreterResult:
            built.append(_build(self))
            engine = types.SimpleNamespace(serialize=lambda: built[0].engine)
            return TRTInterpreterResult(engine, self._input_names, self._output_names, False, False)

    _conversion.TRTInterpreter = Interpreter
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph = export.export_graph(net, sizes, batches)
            timing_cache = Path(folder) / "timing.bin"
            engine = export.compile_graph(graph, sizes, batches, timing_cache, any_gpu=any_gpu)
    finally:
        _conversion.TRTInterpreter = TRTInterpreter
    assert engine == built[0].engine
    return built[0]


def _build(interpreter: Any) -> Built:
    module = interpreter.module
    lowered = copy.deepcopy(module)
    convertible, operators = partitioning.get_graph_converter_support(module, set())
    missing = interpreter.validate_conversion()
    interpreter._construct_trt_network_def()
    network = interpreter.ctx.net
    config = interpreter._populate_trt_builder_config()
    config.num_compute_capabilities = len(CAPABILITIES)
    for i, name in enumerate(CAPABILITIES):
        assert config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    plan = interpreter.builder.build_serialized_network(network, config)
    assert plan is not None, "TensorRT for RTX built nothing"
    return Built(
        lowered=lowered,
        operators=operators,
        convertible=convertible,
        missing=frozenset(missing),
        partitions=_partitions(copy.deepcopy(module)),
        layers=tuple(_layer(network.get_layer(i)) for i in range(network.num_layers)),
        inputs=_bindings(network.get_input(i) for i in range(network.num_inputs)),
        outputs=_bindings(network.get_output(i) for i in range(network.num_outputs)),
        profiles=tuple(
            {name: [tuple(shape) for shape in profile.get_shape(name)] for name in interpreter._input_names}
            for profile in interpreter.optimization_profiles or ()
        ),
        any_gpu=interpreter.compilation_settings.hardware_compatible,
        engine=bytes(plan),
    )


def _partitions(module: fx.GraphModule) -> tuple[int, int]:
    parts, _ = partitioning.fast_partition(module, min_block_size=1, require_full_compilation=False)
    names = [name for name, _ in parts.named_children()]
    ours = sum("_run_on_acc" in name for name in names)
    return ours, sum("_run_on_gpu" in name for name in names)


def _layer(layer: Any) -> Layer:
    tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
    return Layer(
        kind=layer.type.name,
        name=layer.name,
        inputs=tuple(tensor.dtype.name for tensor in tensors if tensor is not None),
        outputs=tuple(layer.get_output(i).dtype.name for i in range(layer.num_outputs)),
    )


def _bindings(tensors: Any) -> tuple[Binding, ...]:
    return tuple(Binding(name=t.name, dtype=t.dtype.name, shape=tuple(t.shape)) for t in tensors)
