"""The engine "tensorrt": one deserialised plan, an execution context for each lane and size of a batch.

TensorRT is driven directly, not by torch-tensorrt's runtime, which has one context behind a lock for all.
"""

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from engine.backends.cuda.device import CudaDevice, Network, Planes, device_errors, planes, require_cuda
from engine.backends.cuda.graph_engine import GraphEngine
from engine.errors import BackendUnavailable, DeviceFailed, EngineError, PlanRefused
from engine.frame import EngineSpec

log = logging.getLogger(__name__)


def load_tensorrt() -> ModuleType:
    """Raises BackendUnavailable."""
    try:
        import tensorrt
    except (ImportError, OSError, RuntimeError) as exc:  # its wheels may be there without their libraries
        hint = "pip install 'livesr[gpu]'"
        raise BackendUnavailable(
            f"backend='tensorrt' needs tensorrt, which fails to load ({exc}): {hint}"
        ) from exc
    module: ModuleType = tensorrt
    return module


class TensorRtEngine(GraphEngine):
    """A plan that takes frames of the spec's size, in batches for each of which it has a profile."""

    def __init__(self, plan: bytes, spec: EngineSpec, *, name: str) -> None:
        """`name`: of the plan, for messages. Raises BackendUnavailable, PlanRefused, DeviceFailed."""
        require_cuda("tensorrt")
        trt = load_tensorrt()
        self.spec = spec
        self.weight_bytes = len(plan)  # it holds little else
        self.device = CudaDevice()
        self.logger = _logger(trt)
        self._trt = trt
        self._runtime = trt.Runtime(self.logger)
        with device_errors("while the engine was loaded"), torch.cuda.device(self.device.torch_device):
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None and "memory" in self.logger.last_error.lower():
            raise DeviceFailed(
                f"the GPU is out of memory while the engine was loaded: {self.logger.last_error}"
            )
        if self._engine is None:
            raise PlanRefused(f"TensorRT {trt.__version__} refuses {name}: {self.logger.last_error}")
        self.layers: int = self._engine.num_layers
        self.tensors = _tensors(trt, self._engine)
        self._profiles = profiles(self._engine, self.tensors["y_in"])

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(size for size in super().batches if size in self._profiles)

    def _networks(self) -> Callable[[int], Network]:
        """Of one lane, by the size of the batch: as only one of them runs at a time, they share their
        memory."""
        memory = Memory()
        return lambda size: self._network(size, memory)

    def _network(self, size: int, memory: "Memory") -> Network:
        # By itself a context takes the memory that the largest frames of its plan need.
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with torch.cuda.device(self.device.torch_device):
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise DeviceFailed(f"TensorRT made no execution context: {self.logger.last_error}")
        return Context(
            context, self.spec, self.tensors, self.logger, profile=self._profiles[size], memory=memory
        )


class Memory:
    """What contexts compute in that never run at once: as much as the one needs that needs most."""

    def __init__(self) -> None:
        self._tensor = torch.empty(0, dtype=torch.uint8)

    def of(self, size: int, device: torch.device) -> Tensor:
        """At least so many bytes, and never none, which would have no address. What was given out before
        stays as it is."""
        if self._tensor.numel() < max(size, 1):
            self._tensor = torch.empty(max(size, 1), dtype=torch.uint8, device=device)
        return self._tensor


class Context:
    """Called with planes of the device, always the same: their addresses go into the graph. Its memory is
    PyTorch's, as much as frames of this size and number need."""

    def __init__(
        self,
        context: Any,
        spec: EngineSpec,
        tensors: dict[str, str],
        logger: Any,
        *,
        profile: int,
        memory: Memory,
    ) -> None:
        """`context`: an IExecutionContext without memory; `tensors`: the plan's names of "y_in", "uv_in",
        "y_out" and "uv_out"; `profile`: which of the plan's is for this number of frames."""
        self._profile = profile
        self._shared = memory
        self._context = context
        self._spec = spec
        self._tensors = tensors
        self._logger = logger
        self._result: Planes | None = None
        self._memory: Tensor | None = None

    def __call__(self, y: Tensor, uv: Tensor) -> Planes:
        if self._result is None:
            self._result = self._bind(y, uv)
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise DeviceFailed(f"TensorRT could not start a frame: {self._logger.last_error}")
        return self._result

    def _bind(self, y: Tensor, uv: Tensor) -> Planes:
        spec = self._spec
        # A context begins with the first profile.
        if self._profile and not self._context.set_optimization_profile_async(
            self._profile, torch.cuda.current_stream().cuda_stream
        ):
            raise EngineError(f"the plan has no profile {self._profile}: {self._logger.last_error}")
        result = planes(spec.scale * spec.width, spec.scale * spec.height, frames=len(y), device=y.device)
        for ours, tensor in {"y_in": y, "uv_in": uv, "y_out": result[0], "uv_out": result[1]}.items():
            name, shape = self._tensors[ours], tuple(tensor.shape)
            taken = ours.endswith("_out") or self._context.set_input_shape(name, shape)
            if not taken or not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise EngineError(f"the plan takes no {ours} of {shape}: {self._logger.last_error}")
        size = self._context.update_device_memory_size_for_shapes()
        self._memory = self._shared.of(size, y.device)
        self._context.set_device_memory(self._memory.data_ptr(), size)
        return result


def profiles(engine: Any, y_in: str) -> dict[int, int]:
    """Which of a plan's profiles is for how many frames at once."""
    if engine.num_optimization_profiles < 2:
        return {1: 0}
    # Smallest, typical and largest shape of each; they have as many frames.
    shapes = [engine.get_tensor_profile_shape(y_in, i) for i in range(engine.num_optimization_profiles)]
    return {int(typical[0]): index for index, (_, typical, _) in enumerate(shapes)}


def _tensors(trt: Any, engine: Any) -> dict[str, str]:
    tensors = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        way = "in" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "out"
        plane = "y" if engine.get_tensor_shape(name)[1] == 1 else "uv"
        tensors[f"{plane}_{way}"] = name
    return tensors


def _logger(trt: Any) -> Any:
    """TensorRT's messages in our log; what it said last of an error goes into exceptions."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        last_error = "it did not say why"

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last_error = message
                log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                log.warning("TensorRT: %s", message)

    return Logger()
