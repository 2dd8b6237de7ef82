"""The engine "cuda": the folded network in FP16 by PyTorch. A fallback for TensorRT, and its oracle."""

from typing import Any

import torch
from torch import Tensor

from engine.backends.cuda.device import (
    CudaDevice,
    CudaHostSlot,
    CudaSlot,
    CudaSurfaceSlot,
    Planes,
    batch_lane,
    device_errors,
    host_lane,
    require_cuda,
    surface_lane,
)
from engine.backends.cuda.lanes import DeviceLane, FrameLane
from engine.batches import batch_sizes
from engine.frame import Colour, DeviceFrame, EngineSpec, YuvFrame
from engine.network.checkpoint import Checkpoint
from engine.network.fold import fold
from engine.network.frame_net import frame_net


class CudaEngine:
    """One copy of the weights, a graph for each lane and size of a batch."""

    def __init__(self, checkpoint: Checkpoint, colour: Colour, spec: EngineSpec) -> None:
        """Raises BackendUnavailable, DeviceFailed."""
        require_cuda("cuda")
        self.spec = spec
        self.device = CudaDevice()
        net = frame_net(fold(checkpoint.network()), checkpoint.config, colour, torch.float16)
        self.weight_bytes = sum(weight.nbytes for weight in (*net.parameters(), *net.buffers()))
        with device_errors("while the network was loaded"):
            net.to(self.device.torch_device)
            self._net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def batches(self) -> tuple[int, ...]:
        return batch_sizes(self.spec.width, self.spec.height)

    def lane(self) -> FrameLane[YuvFrame]:
        """Raises DeviceFailed."""
        return host_lane(lambda _: self._run, self.spec, self.device)

    def surface_lane(self) -> FrameLane[DeviceFrame]:
        """Raises DeviceFailed."""
        return surface_lane(lambda _: self._run, self.spec, self.device)

    def slot(self) -> CudaHostSlot:
        """Raises DeviceFailed."""
        return CudaHostSlot(self.spec, self.device)

    def surface_slot(self) -> CudaSurfaceSlot:
        """Raises DeviceFailed."""
        return CudaSurfaceSlot(self.spec, self.device)

    def batch_lane(self, most: int) -> DeviceLane[CudaSlot[Any]]:
        """Raises DeviceFailed."""
        sizes = [size for size in self.batches if size <= most]
        return batch_lane(lambda _: self._run, self.spec, self.device, sizes)

    def _run(self, y: Tensor, uv: Tensor) -> Planes:
        # cuDNN tries its algorithms in the warm-up, and the graph keeps the fastest.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            y, uv = self._net(y, uv)
        # Inside the graph, or each copy to the host would do it.
        return y.contiguous(), uv.contiguous()
