"""Surfaces "in a GPU's memory", which is the host's: numpy arrays whose DLPack capsules say CUDA."""

import ctypes

import numpy as np
from av.video.frame import VideoFrame

from engine.frame import DeviceFrame
from server.worker.process.picture import plane_view

_CUDA = 2
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class DeviceArray:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, *, stream: int | None = None) -> object:
        capsule = self._array.__dlpack__()
        tensor = _get_pointer(capsule, b"dltensor")  # DLTensor: data, then the device's type and number
        ctypes.c_int.from_address(tensor + ctypes.sizeof(ctypes.c_void_p)).value = _CUDA
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0


def surface(frame: VideoFrame, pitch: int) -> DeviceFrame:
    """A yuv420p frame as one NV12 buffer."""
    width, height = frame.width, frame.height
    buffer = np.full((height * 3 // 2, pitch), 0x5A, np.uint8)
    buffer[:height, :width] = plane_view(frame, 0)
    uv = buffer[height:, :width].reshape(height // 2, width // 2, 2)
    uv[:, :, 0], uv[:, :, 1] = plane_view(frame, 1), plane_view(frame, 2)
    return DeviceFrame(y=DeviceArray(buffer[:height, :width]), uv=DeviceArray(uv), width=width, height=height)
