"""Where a run computes: CPU or GPU, alone or as one of the processes that torchrun started."""

import os

import torch
from torch import nn
from torch.distributed import broadcast_object_list, init_process_group, is_initialized
from torch.nn.parallel import DistributedDataParallel


class Devices:
    """This process's device and its place among the others, read off torchrun's environment."""

    def __init__(self) -> None:
        cuda = torch.cuda.is_available()
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if self.count > 1 and not is_initialized():
            init_process_group("nccl" if cuda else "gloo")

    def agreed(self, value: int) -> int:
        """The first process's value, in every process."""
        if self.count == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as the loop calls it: gradients are averaged over all processes."""
        if self.count == 1:
            return network
        # Our buffers are constants, and torch refuses to broadcast some of them in channels-last.
        return DistributedDataParallel(network, broadcast_buffers=False)
