"""The frame graph against arithmetic written down separately: positions, matrices, rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.frame import Colour, YuvFrame
from engine.network.frame_net import FrameNet

COLOURS = [Colour(matrix=m, full_range=f) for m in ("bt601", "bt709") for f in (False, True)]  # type: ignore[arg-type]


class Double(nn.Module):
    """Stands for a network: interpolates linearly, and remembers what it saw."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


def frame_net(net: nn.Module, scale: int, kind: Any, colour: Colour) -> FrameNet:
    return FrameNet(net, scale, kind, colour).requires_grad_(False)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((1, 1, 2 * x.shape[2], 2 * x.shape[3]), self.value)


def run(net: FrameNet, y: Any, u: Any, v: Any) -> list[NDArray[np.uint8]]:
    y = torch.from_numpy(np.asarray(y, np.uint8))[None, None]
    uv = torch.from_numpy(np.stack([u, v]).astype(np.uint8))[None]
    y, uv = net(y, uv)
    return [y[0, 0].numpy(), uv[0, 0].numpy(), uv[0, 1].numpy()]


def keys(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def sample(plane: NDArray[Any], row: float, column: float) -> float:
    """Bicubic at a position in samples, borders repeated."""
    total = 0.0
    for i in range(int(np.floor(row)) - 1, int(np.floor(row)) + 3):
        for j in range(int(np.floor(column)) - 1, int(np.floor(column)) + 3):
            pixel = plane[np.clip(i, 0, plane.shape[0] - 1), np.clip(j, 0, plane.shape[1] - 1)]
            total += keys(row - i) * keys(column - j) * float(pixel)
    return total


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_chroma_is_bicubic_at_h264s_positions(scale: int, noise: Callable[..., YuvFrame]) -> None:
    """Chroma column i lies on luma column 2i, centre 2i + 1/2; row i between luma rows 2i and 2i + 1."""
    frame = noise(12, 10)
    net = frame_net(nn.Upsample(scale_factor=scale), scale, "y", Colour())
    _, u, v = run(net, frame.y, frame.u, frame.v)
    for plane, out in ((frame.u, u), (frame.v, v)):
        expected = np.empty(out.shape)
        for row in range(out.shape[0]):
            for column in range(out.shape[1]):
                at_row = ((2 * row + 1) / scale - 1) / 2
                at_column = ((2 * column + 0.5) / scale - 0.5) / 2
                expected[row, column] = sample(plane, at_row, at_column)
        expected = np.clip(expected, 0, 255)
        assert np.abs(out - expected).max() <= 0.501


def test_luma_is_clamped_where_a_cast_would_wrap(noise: Callable[..., YuvFrame]) -> None:
    frame = noise(8, 8)
    for value, expected in ((-40.0, 0), (300.0, 255), (254.6, 255), (0.4, 0)):
        y, _, _ = run(frame_net(Constant(value), 2, "y", Colour()), frame.y, frame.u, frame.v)
        assert (y == expected).all(), f"{value} became {np.unique(y)}"


# Code values of saturated colours, from the recommendations themselves.
KNOWN = [
    (Colour(matrix="bt601"), (81, 90, 240), (255, 0, 0)),
    (Colour(matrix="bt601"), (41, 240, 110), (0, 0, 255)),
    (Colour(matrix="bt709"), (63, 102, 240), (255, 0, 0)),
    (Colour(matrix="bt709"), (173, 42, 26), (0, 255, 0)),
    (Colour(matrix="bt601", full_range=True), (76, 85, 255), (254, 0, 0)),
    (Colour(matrix="bt709", full_range=True), (54, 99, 255), (254, 0, 0)),
    (Colour(matrix="bt709"), (235, 128, 128), (255, 255, 255)),
    (Colour(matrix="bt601"), (16, 128, 128), (0, 0, 0)),
    (Colour(matrix="bt601", full_range=True), (255, 128, 128), (255, 255, 255)),
]


@pytest.mark.parametrize(("colour", "yuv", "rgb"), KNOWN)
def test_the_network_sees_the_streams_rgb(
    colour: Colour, yuv: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    double = Double()
    y, u, v = yuv
    out = run(frame_net(double, 2, "rgb", colour), np.full((8, 8), y), np.full((4, 4), u), np.full((4, 4), v))
    seen = double.seen[0].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(seen, rgb, atol=2.0)  # the code values are rounded
    for plane, value in zip(out, yuv, strict=True):
        assert (plane == value).all()


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_grey_stays_grey(colour: Colour) -> None:
    luma = np.random.default_rng(0).integers(0, 256, (16, 20))
    grey = np.full((8, 10), 128)
    double = Double()
    _, u, v = run(frame_net(double, 2, "rgb", colour), luma, grey, grey)
    assert (u == 128).all()
    assert (v == 128).all()
    red, green, blue = double.seen[0]
    torch.testing.assert_close(red, green, atol=1e-3, rtol=0)
    torch.testing.assert_close(blue, green, atol=1e-3, rtol=0)


@pytest.mark.parametrize("slopes", [(9.13, 0.0), (0.0, 9.13)], ids=["across", "down"])
@pytest.mark.parametrize("kind", ["y", "rgb"])
def test_chroma_does_not_move_against_luma(kind: Any, slopes: tuple[float, float]) -> None:
    """The same gradient over the picture in every plane is that gradient again at twice the size."""
    rows, columns = np.mgrid[0:24, 0:24]

    def gradient(x: Any, y: Any) -> Any:
        return 20 + slopes[0] * x + slopes[1] * y  # x, y in LR pixels from the picture's corner

    planes = (
        gradient(columns + 0.5, rows + 0.5),
        gradient(2 * columns[:12, :12] + 0.5, 2 * rows[:12, :12] + 1),
        gradient(2 * columns[:12, :12] + 0.5, 2 * rows[:12, :12] + 1),
    )
    net = frame_net(Double(), 2, kind, Colour())
    y, u, v = run(net, *(np.rint(p) for p in planes))
    out_rows, out_columns = np.mgrid[0:48, 0:48]
    inside = (slice(8, -8), slice(8, -8))
    luma = gradient((out_columns + 0.5) / 2, (out_rows + 0.5) / 2)
    chroma = gradient((2 * out_columns[:24, :24] + 0.5) / 2, (2 * out_rows[:24, :24] + 1) / 2)
    for plane, expected in ((y, luma), (u, chroma), (v, chroma)):
        error = (plane - expected)[inside]
        assert np.abs(error).max() < 2.5
        assert abs(error.mean()) < 0.3  # a shift of 1/16 pixel would be 0.57


@pytest.mark.parametrize("kind", ["y", "rgb"])
def test_one_export_serves_every_even_size(kind: Any) -> None:
    """Other compilers take the frame graph through torch.export."""
    net = frame_net(nn.PixelShuffle(1), 1, kind, Colour())

    def planes(height: int, width: int) -> tuple[Tensor, Tensor]:
        shapes = ((1, 1, height, width), (1, 2, height // 2, width // 2))
        y, uv = (torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes)
        return y, uv

    h, w = torch.export.Dim("h", min=8, max=1080), torch.export.Dim("w", min=8, max=1920)
    shapes = {"y": {2: 2 * h, 3: 2 * w}, "uv": {2: h, 3: w}}
    exported = torch.export.export(net, planes(32, 48), dynamic_shapes=shapes).module()
    for size in ((16, 16), (50, 70)):
        frame = planes(*size)
        for ours, expected in zip(exported(*frame), net(*frame), strict=True):
            assert torch.equal(ours, expected)


def test_odd_sizes_are_no_frame() -> None:
    chroma = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"y\.shape = \(8, 9\) must have even sides"):
        YuvFrame(y=np.zeros((8, 9), np.uint8), u=chroma, v=chroma)
