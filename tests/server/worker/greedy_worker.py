"""A worker that runs away with memory as soon as a picture comes."""

from server.worker import main as worker


def greedy(job, on_progress):
    return lambda width, height, colour: bytearray(4 * job.worker_memory_bytes)


if __name__ == "__main__":
    worker.main(greedy)
