"""What a TensorRT engine would run on here: the GPU and the versions of the libraries."""

from importlib.metadata import PackageNotFoundError, version

from engine.errors import BackendUnavailable
from engine.plan_request import Target


def current_target() -> Target:
    """Of the process's first GPU. Raises BackendUnavailable where there is none or a library is missing."""
    try:
        import torch

        if not torch.cuda.is_available():
            raise BackendUnavailable("backend='tensorrt' needs an NVIDIA GPU, and PyTorch can use none here")
        import tensorrt

        torch_tensorrt = version("torch-tensorrt")
    except (ImportError, OSError, PackageNotFoundError) as exc:
        missing = getattr(exc, "name", None) or exc
        raise BackendUnavailable(
            f"backend='tensorrt' needs {missing}, which is not installed: pip install 'livesr[gpu]'"
        ) from exc
    major, minor = torch.cuda.get_device_capability()
    return Target(
        gpu=torch.cuda.get_device_name(),
        compute_capability=f"{major}.{minor}",
        tensorrt=tensorrt.__version__,
        torch=torch.__version__,
        torch_tensorrt=torch_tensorrt,
    )
