"""The reference backend: the network as it was trained, eager float32 PyTorch, nothing folded. The oracle."""

import numpy as np
import torch

from engine.config import AwsrnConfig
from engine.frame import Colour, EngineSpec, YuvFrame
from engine.net import Batch
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import Checkpoint
from engine.network.frame_net import frame_net


class ReferenceEngine:
    def __init__(self, checkpoint: Checkpoint, colour: Colour, spec: EngineSpec, device: str = "cpu") -> None:
        self.spec = spec
        self._device = device
        self._frame_net = frame_net(checkpoint.network(), checkpoint.config, colour).to(device)

    def lane(self) -> "ReferenceLane":
        return ReferenceLane(self._frame_net, self.spec, self._device)


class ReferenceLane:
    """Computes in `wait`: an oracle has no need to overlap."""

    def __init__(self, net: torch.nn.Module, spec: EngineSpec, device: str) -> None:
        self._net = net
        self._spec = spec
        self._device = device
        self._input: tuple[torch.Tensor, torch.Tensor] | None = None

    def submit(self, frame: YuvFrame) -> None:
        size = (self._spec.height, self._spec.width)
        if frame.y.shape != size:
            raise ValueError(f"{frame.y.shape = } must be {size}, which this engine was loaded for")
        y = torch.from_numpy(frame.y[None, None].copy())
        uv = torch.from_numpy(np.stack([frame.u, frame.v])[None])
        self._input = y, uv

    def wait(self) -> YuvFrame:
        assert self._input is not None, "wait without submit"
        # On a GPU, float32 shall be float32: cuDNN would take 19-bit products.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            y, uv = (plane.cpu() for plane in self._net(*(plane.to(self._device) for plane in self._input)))
        self._input = None
        return YuvFrame(y=y[0, 0].numpy(), u=uv[0, 0].numpy(), v=uv[0, 1].numpy())


class ReferenceNet:
    def __init__(self, network: Awsrn) -> None:
        self._network = network

    @property
    def config(self) -> AwsrnConfig:
        return self._network.config

    def run(self, x: Batch) -> Batch:
        with torch.inference_mode():
            out: Batch = self._network(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()
        return out
