"""Batch normalisation and ReLU in front of a convolution: the pre-activation of DRRN and MemNet."""

from torch import nn


class Normalised(nn.Sequential):
    """(B, features, H, W) → the same shape."""

    def __init__(self, features: int) -> None:
        super().__init__(nn.BatchNorm2d(features), nn.ReLU())
