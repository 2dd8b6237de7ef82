"""NV12 surfaces in the GPU's memory: read from a decoder's, made for an encoder's."""

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from engine.frame import DeviceFrame


class SurfaceSink:
    """A new NV12 surface for each frame: the encoder may hold it for longer than the lane is busy."""

    output: DeviceFrame

    def take(self, y: Tensor, uv: Tensor) -> None:
        self.output = make_surface(y, uv)


def read_surface(frame: DeviceFrame, y: Tensor, uv: Tensor) -> None:
    """Copies NV12 into planes: U and V, neighbours there, lie a plane apart here."""
    # With stream=None the producer does not synchronise; the caller has (libav knows no other way).
    source_y, source_uv = (from_dlpack(p.__dlpack__(stream=None)) for p in (frame.y, frame.uv))
    shapes = (frame.height, frame.width), (frame.height // 2, frame.width // 2, 2)
    for name, plane, shape in zip(("y", "uv"), (source_y, source_uv), shapes, strict=True):
        if tuple(plane.shape) != shape or plane.dtype != torch.uint8:
            raise ValueError(
                f"surface plane {name} is {plane.dtype} {tuple(plane.shape)}, must be uint8 {shape}"
            )
    y[0, 0].copy_(source_y, non_blocking=True)
    uv[0].copy_(source_uv.permute(2, 0, 1), non_blocking=True)


def make_surface(y: Tensor, uv: Tensor) -> DeviceFrame:
    """The way back, into memory of its own."""
    height, width = y.shape[2:]
    surface_y, surface_uv = y.new_empty(height, width), uv.new_empty(height // 2, width // 2, 2)
    surface_y.copy_(y[0, 0], non_blocking=True)
    surface_uv.permute(2, 0, 1).copy_(uv[0], non_blocking=True)
    return DeviceFrame(y=surface_y, uv=surface_uv, width=width, height=height)
