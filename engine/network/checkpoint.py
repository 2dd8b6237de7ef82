"""Checkpoints: safetensors weights with the network's configuration and where they come from.

The weights are the file; configuration and provenance are its metadata, so nothing can drift apart.
Also reads the state dicts that the authors released (github.com/ChaofWang/AWSRN).
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.config import AwsrnConfig
from engine.errors import InvalidCheckpoint, ModelNotFound
from engine.files import replace_file
from engine.network.awsrn import Awsrn
from engine.network.pytorch_file import check_finite, read_pytorch

FORMAT = "livesr-awsrn-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A trained network: its weights by the names `Awsrn.state_dict()` gives them, float32."""

    config: AwsrnConfig
    state: dict[str, Tensor] = field(repr=False)
    provenance: dict[str, Any]
    sha256: str = ""

    def network(self) -> Awsrn:
        """The network in evaluation mode. Raises InvalidCheckpoint where the weights do not fit."""
        network = Awsrn(self.config)
        check_shapes(self.state, network)
        network.load_state_dict(self.state)
        return network.eval()


def check_shapes(state: dict[str, Tensor], network: Awsrn) -> None:
    """Raises InvalidCheckpoint naming the first weight that is missing, unknown or of another shape."""
    expected = network.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise InvalidCheckpoint(f"weight {name!r} is missing from the checkpoint")
        if name not in expected:
            raise InvalidCheckpoint(f"weight {name!r} does not belong to {network.config}")
        if state[name].shape != expected[name].shape:
            shapes = f"{tuple(state[name].shape)} where {tuple(expected[name].shape)} belongs"
            raise InvalidCheckpoint(f"weight {name!r} has shape {shapes}")


def save_checkpoint(path: Path, network: Awsrn, provenance: dict[str, Any]) -> None:
    """Writes atomically: the file is whole or not there."""
    write_weights(path, network, FORMAT, network.config.to_dict(), provenance)


def write_weights(
    path: Path, network: nn.Module, tag: str, config: dict[str, Any], provenance: dict[str, Any]
) -> None:
    """Any network's file: float32 weights, and the metadata that says what they are."""
    state = {k: v.detach().float().contiguous() for k, v in network.state_dict().items()}
    metadata = {"format": tag, "config": json.dumps(config), "provenance": json.dumps(provenance)}
    replace_file(path, save(state, metadata))


def read_weights(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and weights of any network's file. Raises ModelNotFound or InvalidCheckpoint."""
    if not path.is_file():
        raise ModelNotFound(f"checkpoint {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as exc:
        raise InvalidCheckpoint(f"{path} is no safetensors file: {exc}") from exc
    check_finite(path, state.items())
    return metadata, state


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises ModelNotFound or InvalidCheckpoint."""
    metadata, state = read_weights(path)
    if metadata.get("format") != FORMAT:
        raise InvalidCheckpoint(f"{path} has format {metadata.get('format')!r}, must be {FORMAT!r}")
    try:
        config = AwsrnConfig.from_dict(json.loads(metadata["config"]))
        provenance = json.loads(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidCheckpoint(f"{path} has unreadable metadata: {exc}") from exc
    checkpoint = Checkpoint(
        config=config,
        state=state,
        provenance=provenance,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    _check_network(path, checkpoint)
    return checkpoint


def _check_network(path: Path, checkpoint: Checkpoint) -> None:
    try:
        checkpoint.network()
    except InvalidCheckpoint as exc:
        raise InvalidCheckpoint(f"{path}: {exc}") from exc


# Released names on the left, the paper's terms on the right; the authors' unified file says lfl.{j} for b{j}.
_RELEASED_NAMES = [
    (r"^(head|skip)\.0\.", r"\1."),
    (r"^body\.(\d+)\.(?:b|lfl\.)(\d+)\.", r"body.\1.awrus.\2."),
    (r"\.body\.0\.(?=weight|bias)", ".conv1."),
    (r"\.body\.2\.(?=weight|bias)", ".conv2."),
    (r"\.reduction\.", ".lrfu."),
    (r"\.res_scale\.scale$", ".lambda_res"),
    (r"\.x_scale\.scale$", ".lambda_x"),
    (r"^tail\.tail_k(\d)\.", r"tail.branches.k\1."),
    (r"^tail\.scale_k(\d)\.scale$", r"tail.alphas.k\1"),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
]


def load_released(path: Path) -> Checkpoint:
    """Reads a state dict that the authors' code saved (.pt); the configuration is read off its weights.

    Raises ModelNotFound or InvalidCheckpoint. Unpickling is restricted to tensors.
    """
    released = read_pytorch(path)
    if not isinstance(released, dict):
        raise InvalidCheckpoint(f"{path} holds a {type(released).__name__}, must be a dictionary of tensors")
    state: dict[str, Tensor] = {}
    for name, tensor in released.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            item = f"{name!r} of type {type(tensor).__name__}"
            raise InvalidCheckpoint(f"{path} holds {item}, must hold tensors by name alone")
        for pattern, replacement in _RELEASED_NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor.float()
    check_finite(path, state.items())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    checkpoint = Checkpoint(
        config=_infer_config(path, state),
        state=state,
        provenance={"source": path.name, "source_sha256": digest, "format": "released state dict"},
        sha256=digest,
    )
    _check_network(path, checkpoint)
    return checkpoint


def _infer_config(path: Path, state: dict[str, Tensor]) -> AwsrnConfig:
    def shape(name: str) -> torch.Size:
        full = f"{name}.parametrizations.weight.original1"
        if full not in state:
            raise InvalidCheckpoint(f"{path} is no AWSRN state dict: it lacks {name!r}")
        return state[full].shape

    def count(pattern: str) -> int:
        return len({m.group(1) for name in state if (m := re.match(pattern, name))})

    kernels = sorted(int(m.group(1)) for n in state if (m := re.match(r"tail\.alphas\.k(\d+)$", n)))
    try:
        features, channels = shape("head")[:2]
        return AwsrnConfig(
            scale=round((shape("skip")[0] / channels) ** 0.5),
            lfbs=count(r"body\.(\d+)\."),
            awrus=count(r"body\.0\.awrus\.(\d+)\."),
            features=features,
            block_features=shape("body.0.awrus.0.conv1")[0],
            kernels=tuple(kernels),
            colour="rgb" if channels == 3 else "y",
        )
    except InvalidCheckpoint:
        raise
    except (ValueError, IndexError, ZeroDivisionError) as exc:
        raise InvalidCheckpoint(f"{path} is no AWSRN state dict: {exc}") from exc
