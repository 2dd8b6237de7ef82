"""The engine "cuda": the folded network in FP16 by PyTorch. A fallback for TensorRT, and its oracle."""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.backends.cuda.device import CudaDevice, Network, Planes, device_errors, require_cuda
from engine.backends.cuda.graph_engine import GraphEngine
from engine.frame import Colour, EngineSpec
from engine.network.checkpoint import Checkpoint
from engine.network.fold import fold
from engine.network.frame_net import frame_net


class CudaEngine(GraphEngine):
    """The same weights for every lane."""

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

    def _networks(self) -> Callable[[int], Network]:
        return lambda _: self._run

    def _run(self, y: Tensor, uv: Tensor) -> Planes:
        # cuDNN tries its algorithms in the warm-up, and the graph keeps the fastest.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            y, uv = self._net(y, uv)
        # Inside the graph, or each copy to the host would do it.
        return y.contiguous(), uv.contiguous()
