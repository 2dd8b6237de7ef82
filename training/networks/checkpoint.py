"""Checkpoints of any network here: AWSRN's in the engine's own format, all others alike under another tag."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from engine.awsrn import Awsrn
from engine.checkpoint import FORMAT as AWSRN_FORMAT
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.errors import InvalidCheckpoint, ModelNotFound
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
    state = {k: v.detach().float().contiguous() for k, v in network.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config.to_dict()),
        "provenance": json.dumps(provenance),
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(state, metadata))
    os.replace(partial, path)


def load_network(path: Path) -> LoadedNetwork:
    """Raises ModelNotFound or InvalidCheckpoint."""
    if not path.is_file():
        raise ModelNotFound(f"checkpoint {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as exc:
        raise InvalidCheckpoint(f"{path} is no safetensors file: {exc}") from exc
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
