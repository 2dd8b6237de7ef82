"""From one network to another that is alike: branches taken out, or weights taken over."""

from dataclasses import replace

from torch import nn

from training.networks.build import build_network
from training.networks.checkpoint import LoadedNetwork
from training.networks.config import BaselineConfig


def without_branches(loaded: LoadedNetwork, kernels: set[int]) -> LoadedNetwork:
    """The network without these AWMS branches, its other weights as they are.

    Raises ValueError where a kernel is not there, or nothing would be left.
    """
    there = () if isinstance(loaded.config, BaselineConfig) else loaded.config.kernels
    for kernel in sorted(kernels):
        if kernel not in there:
            raise ValueError(f"kernel {kernel} cannot be removed: the AWMS has {there}")
    assert not isinstance(loaded.config, BaselineConfig)
    kept = tuple(k for k in there if k not in kernels)
    if not kept:
        raise ValueError(f"removing {sorted(kernels)} leaves nothing of the AWMS {there}")
    config = replace(loaded.config, kernels=kept)
    network = build_network(config)
    take_over(network, loaded.network)
    return LoadedNetwork(config=config, network=network.eval(), provenance=loaded.provenance)


def take_over(network: nn.Module, trained: nn.Module) -> list[str]:
    """Gives `network` every weight of `trained` that has the same name and shape, and tells which of its own
    stay as they are: a ×4 network begins with the body of a ×2 one, an AWMS with the branches of a smaller.

    Raises ValueError where nothing fits.
    """
    own = network.state_dict()
    fitting = {n: t for n, t in trained.state_dict().items() if n in own and own[n].shape == t.shape}
    if not fitting:
        raise ValueError("the weights to begin with have none in common with the network to be trained")
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]
