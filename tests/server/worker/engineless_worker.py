"""A worker that can load no engine, and says which GPU it sees: what it has, was prepared."""

import os

from engine.errors import EngineError
from server.worker import main as worker


def engineless(job, on_progress):
    def load(width, height, colour):
        raise EngineError(f"no engine; the GPU is {os.environ.get('CUDA_VISIBLE_DEVICES')}")

    return load


if __name__ == "__main__":
    worker.main(engineless)
