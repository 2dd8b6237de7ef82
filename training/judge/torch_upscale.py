"""Any PyTorch network on whole images and on video frames, as the engine does it for AWSRN."""

from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from engine.config import ColourKind
from engine.frame import Colour, Plane, YuvFrame
from engine.net import Batch, upscale_image
from engine.network.frame_net import FrameNet
from training.judge.evaluate import Upscaler


class Shape(Protocol):
    """All that is asked of a configuration."""

    @property
    def scale(self) -> int: ...

    @property
    def colour(self) -> ColourKind: ...


class TorchNet:
    """The engine's `Net`."""

    def __init__(self, network: nn.Module, config: Shape) -> None:
        self.config: Any = config
        self._network = network.eval()

    def run(self, x: Batch) -> Batch:
        with torch.inference_mode():
            out: Batch = self._network(torch.from_numpy(x)).numpy()
        return out


class TorchLuma:
    def __init__(self, network: nn.Module, config: Shape, colour: Colour) -> None:
        self._net = FrameNet(network, config.scale, config.colour, colour).eval()

    def __call__(self, frame: YuvFrame) -> Plane:
        y, uv = frame.y[None, None].copy(), np.stack([frame.u, frame.v])[None]
        with torch.inference_mode():
            plane: Plane = self._net(torch.from_numpy(y), torch.from_numpy(uv))[0][0, 0].numpy()
        return plane


def torch_image(network: nn.Module, config: Shape) -> Upscaler:
    return partial(upscale_image, TorchNet(network, config))


def torch_video(network: nn.Module, config: Shape, width: int, height: int, colour: Colour) -> TorchLuma:
    return TorchLuma(network, config, colour)
