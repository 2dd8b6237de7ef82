"""Every network that can be trained and judged here, behind a few functions."""

from training.networks.build import build_network, looks_around
from training.networks.checkpoint import LoadedNetwork, load_network, save_network
from training.networks.collapsible import collapse, widen
from training.networks.config import (
    ABLATIONS,
    BASELINES,
    AblationConfig,
    BaselineConfig,
    NetworkConfig,
    config_from_dict,
    named_config,
)
from training.networks.counts import Counts, counts
from training.networks.quantised import quantise_aware, without_quantisers
from training.networks.transfer import take_over, without_branches

__all__ = [
    "ABLATIONS",
    "BASELINES",
    "AblationConfig",
    "BaselineConfig",
    "Counts",
    "LoadedNetwork",
    "NetworkConfig",
    "build_network",
    "collapse",
    "config_from_dict",
    "counts",
    "load_network",
    "looks_around",
    "named_config",
    "quantise_aware",
    "save_network",
    "take_over",
    "widen",
    "without_branches",
    "without_quantisers",
]
