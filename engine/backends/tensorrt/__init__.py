"""NVIDIA GPUs by TensorRT: engines requested, built in a process of their own, stored and run."""
