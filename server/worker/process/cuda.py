"""NVIDIA's driver as libav is to use it: one context for a process, and streams beside the default one.

libav opens a context of its own for an encoder that is given none, and contexts take turns on a GPU. It
refuses the device's primary one, which PyTorch and TensorRT use, where somebody else has opened it without
CU_CTX_SCHED_BLOCKING_SYNC, as PyTorch does; but it takes what is current on the calling thread as it is. So
here the primary context is made current first, whether PyTorch has opened it or will.
"""

import ctypes
import itertools
from collections.abc import Callable
from functools import cache

from av.codec.hwaccel import HWAccel
from av.video.frame import CudaContext

_CUDA, _CUVID = "libcuda.so.1", "libnvcuvid.so.1"
_NON_BLOCKING = 1  # a stream that does not wait for the default one, nor lets it wait
# So many streams for the encoders of a process; with more encoders some share one.
_STREAMS = 16


class NoDriver(LookupError):
    """There is no NVIDIA driver, or it sees no GPU."""


def use_primary_context() -> None:
    """Makes the primary context of the one GPU that a worker sees current on this thread. Raises NoDriver."""
    _call("cuCtxSetCurrent", _primary_context())


def hwaccel(*, stays_on_gpu: bool = False) -> HWAccel:
    """For a codec in this process's context. `stays_on_gpu`: decoded pictures are not downloaded. What it is
    given to works on the default stream. Raises NoDriver."""
    use_primary_context()
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", allow_software_fallback=True, is_hw_owned=stays_on_gpu, options=options)


def encoder_context() -> CudaContext:
    """For surfaces that go to an encoder: what opens with one of them works on a stream of its own. Raises
    NoDriver."""
    use_primary_context()
    return _encoder_context(next(_turns) % _STREAMS)


_turns = itertools.count()


@cache
def _encoder_context(_: int) -> CudaContext:
    # Neither is ever freed: an encoder works on the stream for as long as it likes.
    stream = ctypes.c_void_p()
    _call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(_NON_BLOCKING))
    return CudaContext(primary_ctx=False, current_ctx=True, cuda_stream=stream.value)


class DecoderCaps(ctypes.Structure):
    """CUVIDDECODECAPS of NVIDIA's Video Codec SDK: what NVDEC takes of a codec, in pixels."""

    _fields_ = (
        ("codec", ctypes.c_int),
        ("chroma", ctypes.c_int),
        ("depth_minus_8", ctypes.c_uint),
        ("_reserved", ctypes.c_uint * 3),
        ("supported", ctypes.c_ubyte),
        ("engines", ctypes.c_ubyte),
        ("formats", ctypes.c_ushort),
        ("most_width", ctypes.c_uint),
        ("most_height", ctypes.c_uint),
        ("most_macroblocks", ctypes.c_uint),
        ("least_width", ctypes.c_ushort),
        ("least_height", ctypes.c_ushort),
        ("_more", ctypes.c_uint * 16),
    )


@cache
def decoder_caps(codec: int, chroma: int, depth: int) -> DecoderCaps:
    """`codec` is a cudaVideoCodec, `chroma` a cudaVideoChromaFormat. Raises NoDriver."""
    use_primary_context()
    caps = DecoderCaps(codec=codec, chroma=chroma, depth_minus_8=depth - 8)
    _check(_CUVID, "cuvidGetDecoderCaps", _function(_CUVID, "cuvidGetDecoderCaps")(ctypes.byref(caps)))
    return caps


@cache
def _primary_context() -> ctypes.c_void_p:
    # Kept until the process ends: PyTorch's tensors lie in it.
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuInit", ctypes.c_uint(0))
    _call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


def _call(name: str, *arguments: object) -> None:
    _check(_CUDA, name, _function(_CUDA, name)(*arguments))


def _check(library: str, name: str, status: int) -> None:
    if status:
        raise NoDriver(f"{name} of {library} failed with {status}")


def _function(library: str, name: str) -> Callable[..., int]:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(library), name)
    except (OSError, AttributeError) as exc:
        raise NoDriver(f"no NVIDIA driver here: {exc}") from exc
    return function
