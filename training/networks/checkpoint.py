"""Checkpoints of any network here: AWSRN's in the engine's own format, all others alike under another tag."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from engine.errors import InvalidCheckpoint
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import FORMAT as AWSRN_FORMAT
from engine.network.checkpoint import load_checkpoint, read_weights, save_checkpoint, write_weights
from training.networks.build import build_network
from training.networks.config import NetworkConfig, config_from_dict

FORMAT = "livesr-network-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedNetwork:
    """A trained network in evaluation mode, and where it comes from."""

    config: NetworkConfig
    network: nn.Module = field(repr=False)
    provenance: dict[str, Any]


def save_network(path: Path, network: nn.Module, config: NetworkConfig, provenance: dict[str, Any]) -> None:
    """Writes atomically: the file is whole or not there. `config` is what `network` was built from."""
    if isinstance(network, Awsrn):
        save_checkpoint(path, network, provenance)
        return
    write_weights(path, network, FORMAT, config.to_dict(), provenance)


def load_network(path: Path) -> LoadedNetwork:
    """Raises ModelNotFound or InvalidCheckpoint."""
    metadata, state = read_weights(path)
    if metadata.get("format") == AWSRN_FORMAT:
        awsrn = load_checkpoint(path)
        return LoadedNetwork(config=awsrn.config, network=awsrn.network(), provenance=awsrn.provenance)
    if metadata.get("format") != FORMAT:
        tags = f"{AWSRN_FORMAT!r} or {FORMAT!r}"
        raise InvalidCheckpoint(f"{path} has format {metadata.get('format')!r}, must be {tags}")
    try:
        config = config_from_dict(json.loads(metadata["config"]))
        provenance = json.loads(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidCheckpoint(f"{path} has unreadable metadata: {exc}") from exc
    network = build_network(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as exc:
        # torch lists every missing, unknown and misshapen weight.
        raise InvalidCheckpoint(f"{path} does not fit {config}: {exc}") from exc
    return LoadedNetwork(config=config, network=network.eval(), provenance=provenance)
