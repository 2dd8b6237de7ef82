"""What a TensorRT engine would run on here: the GPU and the versions of the libraries."""

from importlib.metadata import PackageNotFoundError, version

import torch

from engine.backends.cuda.device import require_cuda
from engine.backends.tensorrt.engine import load_tensorrt
from engine.backends.tensorrt.request import Target
from engine.errors import BackendUnavailable


def current_target() -> Target:
    """The target that the process's first GPU is. Raises BackendUnavailable where there is none or a library
    is missing."""
    require_cuda("tensorrt")
    tensorrt = load_tensorrt()

    try:
        torch_tensorrt = version("torch-tensorrt")
    except PackageNotFoundError as exc:
        hint = "pip install 'livesr[gpu]'"
        raise BackendUnavailable(
            f"backend='tensorrt' needs torch-tensorrt, which is not installed: {hint}"
        ) from exc
    major, minor = torch.cuda.get_device_capability()
    return Target(
        gpu=torch.cuda.get_device_name(),
        compute_capability=f"{major}.{minor}",
        tensorrt=tensorrt.__version__,
        torch=torch.__version__,
        torch_tensorrt=torch_tensorrt,
    )
