"""What every engine does whose network is captured as CUDA graphs: lanes, slots and batches of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from engine.backends.cuda.device import (
    CudaDevice,
    CudaHostSlot,
    CudaSlot,
    CudaSurfaceSlot,
    Network,
    batch_lane,
    host_lane,
    surface_lane,
)
from engine.backends.cuda.lanes import DeviceLane, FrameLane
from engine.batches import batch_sizes
from engine.frame import DeviceFrame, EngineSpec, YuvFrame


class GraphEngine(ABC):
    """One copy of the weights, a graph for each lane and size of a batch. Each method raises DeviceFailed."""

    spec: EngineSpec
    device: CudaDevice

    @property
    def batches(self) -> tuple[int, ...]:
        return batch_sizes(self.spec.width, self.spec.height)

    def lane(self) -> FrameLane[YuvFrame]:
        return host_lane(self._networks(), self.spec, self.device)

    def surface_lane(self) -> FrameLane[DeviceFrame]:
        return surface_lane(self._networks(), self.spec, self.device)

    def slot(self) -> CudaHostSlot:
        return CudaHostSlot(self.spec, self.device)

    def surface_slot(self) -> CudaSurfaceSlot:
        return CudaSurfaceSlot(self.spec, self.device)

    def batch_lane(self, most: int) -> DeviceLane[CudaSlot[Any]]:
        sizes = [size for size in self.batches if size <= most]
        return batch_lane(self._networks(), self.spec, self.device, sizes)

    @abstractmethod
    def _networks(self) -> Callable[[int], Network]:
        """Of one lane, by the size of the batch."""
