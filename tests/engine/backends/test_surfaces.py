"""NV12 surfaces, on the CPU by the same code: laid out as NVENC reads them, and none used twice at once."""

import ctypes
import gc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from torch import Tensor

from engine.backends.cuda.surfaces import SurfacePool, read_surface, surface_pool, write_surface
from engine.frame import DeviceFrame, YuvFrame

CPU = torch.device("cpu")


def test_surfaces_are_nv12_there_and_back(noise: Callable[..., YuvFrame]) -> None:
    """On the CPU, where numpy says what interleaving is; rows of a decoder's surface lie a pitch apart."""
    frame = noise(12, 8)
    pitched = np.zeros((8, 16), np.uint8)
    pitched[:, :12] = frame.y
    interleaved = np.zeros((4, 16), np.uint8)
    interleaved[:, 0:12:2], interleaved[:, 1:12:2] = frame.u, frame.v
    surface = DeviceFrame(y=pitched[:, :12], uv=interleaved[:, :12].reshape(4, 6, 2), width=12, height=8)
    y, uv = torch.empty(1, 1, 8, 12, dtype=torch.uint8), torch.empty(1, 2, 4, 6, dtype=torch.uint8)
    read_surface(surface, y, uv)
    for plane, expected in ((y[0, 0], frame.y), (uv[0, 0], frame.u), (uv[0, 1], frame.v)):
        np.testing.assert_array_equal(plane.numpy(), expected)
    back = SurfacePool(12, 8, CPU).lend(partial(write_surface, y, uv))
    assert (back.width, back.height) == (12, 8)
    np.testing.assert_array_equal(np.from_dlpack(back.y), frame.y)
    np.testing.assert_array_equal(np.from_dlpack(back.uv).reshape(4, 12), interleaved[:, :12])


def test_a_surface_that_is_not_what_it_says_is_refused() -> None:
    y, uv = torch.empty(1, 1, 8, 12, dtype=torch.uint8), torch.empty(1, 2, 4, 6, dtype=torch.uint8)
    flat = DeviceFrame(y=np.zeros((8, 12), np.uint8), uv=np.zeros((4, 12), np.uint8), width=12, height=8)
    with pytest.raises(ValueError, match=r"plane uv is torch.uint8 \(4, 12\), must be uint8 \(4, 6, 2\)"):
        read_surface(flat, y, uv)
    deep = DeviceFrame(y=np.zeros((8, 12), np.uint16), uv=np.zeros((4, 6, 2), np.uint8), width=12, height=8)
    with pytest.raises(ValueError, match=r"plane y is torch.uint16 \(8, 12\), must be uint8"):
        read_surface(deep, y, uv)


def as_nvenc_reads(frame: VideoFrame) -> tuple[np.ndarray, np.ndarray]:
    """Luma (h, w) and chroma (h/2, w) by what libav tells NVENC of a frame: the address and the pitch of luma
    and the size, from which it reckons where chroma is."""
    luma, width, height = frame.planes[0], frame.width, frame.height
    assert luma.line_size % 4 == 0, "a pitch that NVENC refuses"
    rows = np.frombuffer(ctypes.string_at(luma.buffer_ptr, luma.line_size * height * 3 // 2), np.uint8)
    rows = rows.reshape(-1, luma.line_size)
    return rows[:height, :width], rows[height:, :width]


def planes(width: int, height: int) -> tuple[Tensor, Tensor]:
    shapes = (1, 1, height, width), (1, 2, height // 2, width // 2)
    y, uv = (torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes)
    return y, uv


def as_frame(surface: DeviceFrame) -> VideoFrame:
    return VideoFrame.from_dlpack((surface.y, surface.uv), format="nv12")


@pytest.mark.parametrize(("width", "height"), [(854, 480), (1280, 720), (1920, 1080), (2560, 1440)])
def test_nvenc_finds_chroma_behind_luma(width: int, height: int) -> None:
    """With a buffer for each plane it found it at 1280×720 by luck: there the allocator put them together."""
    y, uv = planes(width, height)
    luma, chroma = as_nvenc_reads(
        as_frame(SurfacePool(width, height, CPU).lend(partial(write_surface, y, uv)))
    )
    np.testing.assert_array_equal(luma, y[0, 0].numpy())
    np.testing.assert_array_equal(chroma, uv[0].permute(1, 2, 0).reshape(height // 2, width).numpy())


def test_a_surface_is_lent_again_once_nobody_has_it() -> None:
    """Whoever has it last: a plane, a frame of libav, or a reference to that as an encoder takes it."""
    pool = SurfacePool(64, 48, CPU)

    def lend() -> DeviceFrame:
        return pool.lend(partial(write_surface, *planes(64, 48)))

    first = lend()
    address, uv = first.y.data_ptr(), first.uv  # type: ignore[attr-defined]
    frame = as_frame(first)
    del first
    assert as_frame(lend()).planes[0].buffer_ptr != address
    held = frame.planes[1].__dlpack__()  # a reference of its own to the frame's buffers
    del frame
    gc.collect()
    assert as_frame(lend()).planes[0].buffer_ptr != address
    del held, uv
    surfaces = [lend() for _ in range(pool.surfaces)]
    assert address in [surface.y.data_ptr() for surface in surfaces]  # type: ignore[attr-defined]
    assert pool.surfaces == len(surfaces) == 2


def test_memory_stays_where_it_is_while_anybody_has_a_surface_of_it() -> None:
    """An encoder has registered the address. Engines come and go meanwhile."""
    frame = as_frame(surface_pool(64, 48, CPU).lend(partial(write_surface, *planes(64, 48))))
    pool = surface_pool(64, 48, CPU)
    assert pool.surfaces == 1
    assert surface_pool(64, 50, CPU) is not pool
    del frame, pool
    gc.collect()
    assert surface_pool(64, 48, CPU).surfaces == 0
