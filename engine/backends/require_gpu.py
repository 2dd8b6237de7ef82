"""What an engine on an NVIDIA GPU needs of the machine. Free of torch where there is no GPU."""

from importlib.util import find_spec

from engine.errors import BackendUnavailable
from engine.machine import nvidia_gpus

GPU_BACKENDS = ("tensorrt", "cuda")  # the faster first


def require_gpu(backend: str) -> None:
    """Raises BackendUnavailable with what is missing first. Cheap where there is no GPU."""
    if not nvidia_gpus():
        raise BackendUnavailable(f"backend={backend!r} needs an NVIDIA GPU, and nvidia-smi shows none here")
    needed = ["torch", "safetensors"] + (["tensorrt"] if backend == "tensorrt" else [])
    for package in needed:
        if find_spec(package) is None:
            hint = "pip install 'livesr[gpu]'"
            raise BackendUnavailable(f"backend={backend!r} needs {package}, which is not installed: {hint}")
    # Only here is it known that torch is there.
    from engine.backends.cuda.device import require_cuda

    require_cuda(backend)
    if backend == "tensorrt":  # nor is it for TensorRT before
        from engine.backends.tensorrt.engine import load_tensorrt

        load_tensorrt()
