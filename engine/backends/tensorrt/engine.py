"""The engine "tensorrt": one deserialised engine, an execution context for each lane.

TensorRT is driven directly, not by torch-tensorrt's runtime, which has one context behind a lock for all.
"""

import logging
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.backends.cuda.device import (
    CudaDevice,
    Planes,
    device_errors,
    host_lane,
    planes,
    require_cuda,
    surface_lane,
)
from engine.backends.cuda.lanes import DeviceLane
from engine.errors import BackendUnavailable, DeviceFailed, EngineError
from engine.frame import DeviceFrame, EngineSpec, YuvFrame

if TYPE_CHECKING:
    from engine.backends.tensorrt.store import TensorRtArtifact

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


class TensorRtEngine:
    """An artifact that takes frames of the spec's size, one at a time."""

    def __init__(self, artifact: "TensorRtArtifact", spec: EngineSpec) -> None:
        """Raises BackendUnavailable, EngineError where TensorRT refuses the artifact, DeviceFailed."""
        require_cuda("tensorrt")
        trt = load_tensorrt()
        self.spec = spec
        self.device = CudaDevice()
        self.logger = _logger(trt)
        self._runtime = trt.Runtime(self.logger)
        with device_errors("while the engine was loaded"), torch.cuda.device(self.device.torch_device):
            self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._engine is None and "memory" in self.logger.last_error.lower():
            raise DeviceFailed(
                f"the GPU is out of memory while the engine was loaded: {self.logger.last_error}"
            )
        if self._engine is None:
            raise EngineError(f"TensorRT {trt.__version__} refuses {artifact.path}: {self.logger.last_error}")
        self.tensors: dict[str, str] = artifact.manifest["tensors"]

    def lane(self) -> DeviceLane[YuvFrame]:
        """Raises DeviceFailed."""
        return host_lane(self._network(), self.spec, self.device)

    def surface_lane(self) -> DeviceLane[DeviceFrame]:
        """Raises DeviceFailed."""
        return surface_lane(self._network(), self.spec, self.device)

    def _network(self) -> Callable[[Tensor, Tensor], Planes]:
        with torch.cuda.device(self.device.torch_device):
            context = self._engine.create_execution_context()
        if context is None:
            raise DeviceFailed(f"TensorRT made no execution context: {self.logger.last_error}")
        return _Context(context, self)


class _Context:
    """Called with planes of the device, always the same: their addresses go into the graph."""

    def __init__(self, context: Any, engine: TensorRtEngine) -> None:
        self._context = context
        self._engine = engine
        self._result: Planes | None = None

    def __call__(self, y: Tensor, uv: Tensor) -> Planes:
        if self._result is None:
            self._result = self._bind(y, uv)
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise DeviceFailed(f"TensorRT could not start a frame: {self._engine.logger.last_error}")
        return self._result

    def _bind(self, y: Tensor, uv: Tensor) -> Planes:
        spec = self._engine.spec
        result = planes(spec.scale * spec.width, spec.scale * spec.height, device=y.device)
        for ours, tensor in {"y_in": y, "uv_in": uv, "y_out": result[0], "uv_out": result[1]}.items():
            name, shape = self._engine.tensors[ours], tuple(tensor.shape)
            taken = ours.endswith("_out") or self._context.set_input_shape(name, shape)
            if not taken or not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise EngineError(
                    f"the artifact takes no {ours} of {shape}: {self._engine.logger.last_error}"
                )
        return result


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
