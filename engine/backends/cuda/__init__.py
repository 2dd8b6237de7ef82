"""NVIDIA GPUs by PyTorch: the device behind its seams, and lanes with a CUDA graph each."""
