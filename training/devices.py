"""Where a run computes: CPU or GPU, alone or as one of the processes that torchrun started."""

import os

import torch
from torch import nn
from torch.distributed import init_process_group, is_initialized
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

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as the loop calls it: gradients are averaged over all processes."""
        return DistributedDataParallel(network) if self.count > 1 else network
