"""The network is the paper's: its counts, and the released code's own outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import AwsrnConfig, live_config, paper_config
from engine.errors import InvalidCheckpoint, ModelNotFound
from engine.network.awsrn import Awsrn
from engine.network.checkpoint import Checkpoint, load_checkpoint, load_released, save_checkpoint
from tests.conftest import shared
from tests.engine.conftest import make_network

# Paper, table 5 (parameters, Mult-Adds in G); parameters as the released code counts them.
TABLE = [
    ("awsrn-s", 2, 397_482, 91.2),
    ("awsrn-s", 3, 476_757, 48.6),
    ("awsrn-s", 4, 587_742, 33.7),
    ("awsrn-sd", 2, 348_098, 79.6),
    ("awsrn-sd", 3, 388_013, 39.5),
    ("awsrn-sd", 4, 443_894, 25.4),
    ("awsrn-m", 2, 1_063_742, 244.1),
    ("awsrn-m", 3, 1_143_017, 116.6),
    ("awsrn-m", 4, 1_254_002, 72.0),
    ("awsrn", 2, 1_396_872, 320.5),
    ("awsrn", 3, 1_476_147, 150.6),
    ("awsrn", 4, 1_587_132, 91.1),
    ("awsrn", 8, 2_348_172, 33.7),
]


@pytest.mark.parametrize(("variant", "scale", "parameters", "giga_mult_adds"), TABLE)
def test_counts_are_the_papers(variant: str, scale: int, parameters: int, giga_mult_adds: float) -> None:
    config = paper_config(variant, scale)
    assert config.parameters == parameters
    assert sum(p.numel() for p in Awsrn(config).parameters()) == parameters
    assert round(config.mult_adds / 1e9, 1) == giga_mult_adds


def test_the_live_network_is_small() -> None:
    config = live_config()
    assert 24_000 < config.folded_macs_per_lr_pixel < 25_500
    assert AwsrnConfig.from_dict(config.to_dict()) == config


def test_features_of_half_the_resolution_cost_a_quarter() -> None:
    full, half = live_config(features=32), live_config(features=32, grid=2)
    assert half.parameters == sum(p.numel() for p in Awsrn(half).parameters())
    assert half.parameters > full.parameters
    assert half.folded_macs_per_lr_pixel < 0.3 * full.folded_macs_per_lr_pixel
    network = Awsrn(half).eval()
    x = 255 * torch.rand(1, 1, 97, 95, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[..., 48, 47] += 50
    with torch.inference_mode():
        difference = (network(changed) - network(x)).abs()[0, 0]
    assert difference.shape == (194, 190)
    rows, columns = difference.nonzero().T
    for side, at in ((rows, 48), (columns, 47)):
        assert max(at - side.min() // 2, side.max() // 2 - at) <= half.reach


def test_a_context_tells_every_position_of_the_whole_picture() -> None:
    config = live_config(features=32, grid=2, context=16)
    network = make_network(config)
    assert config.parameters == sum(p.numel() for p in network.parameters())
    assert config.folded_macs_per_lr_pixel < 1.01 * live_config(features=32, grid=2).folded_macs_per_lr_pixel
    assert config.reach is None
    x = 255 * torch.rand(1, 1, 97, 95, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[..., :8, :8] = 0
    with torch.inference_mode():
        far = (network(changed) - network(x)).abs()[..., -8:, -8:]
        assert far.min() > 0
        probability = torch.sigmoid(network.compressed(x))
        assert torch.equal(network(x), network(x, probability))
        assert not torch.equal(network(x), network(x, probability / 2))


@pytest.mark.parametrize("name", ["awsrn_s_x2", "awsrn_sd_x3"])
def test_released_weights_give_the_released_outputs(name: str) -> None:
    folder = shared("parity")
    network = load_released(folder / f"{name}.pt").network()
    rgb = torch.from_numpy(np.load(folder / "input_u8.npy")).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        output = network(rgb).numpy()
    assert np.abs(output - np.load(folder / f"{name}_out.npy").reshape(output.shape)).max() <= 1e-3


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    network = Awsrn(live_config())
    save_checkpoint(tmp_path / "net.safetensors", network, {"recipe": "none"})
    loaded = load_checkpoint(tmp_path / "net.safetensors")
    assert loaded.config == network.config
    assert loaded.provenance == {"recipe": "none"}
    x = torch.rand(1, 1, 9, 7) * 255
    assert torch.equal(loaded.network().eval()(x), network.eval()(x))


def test_weights_of_another_shape_are_named() -> None:
    state = Awsrn(live_config(features=32)).state_dict()
    with pytest.raises(InvalidCheckpoint, match=r"'body.0.awrus.0.conv1.*' has shape .* where .* belongs"):
        Checkpoint(config=live_config(), state=state, provenance={}).network()


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.safetensors does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    garbage = tmp_path / "garbage.bin"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidCheckpoint, match=r"garbage\.bin is no safetensors file"):
        load_checkpoint(garbage)
    with pytest.raises(InvalidCheckpoint, match=r"garbage\.bin is no PyTorch file"):
        load_released(garbage)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"scale": 5}, "scale=5 must be one of"),
        ({"awrus": 0}, "awrus=0 must be at least 1"),
        ({"kernels": (4,)}, r"kernels=\(4,\) must be odd"),
        ({"colour": "cmyk"}, "colour='cmyk' must be 'rgb' or 'y'"),
    ],
)
def test_a_config_names_the_rule_it_breaks(fields: dict[str, object], rule: str) -> None:
    good = live_config().to_dict()
    with pytest.raises(ValueError, match=rule):
        AwsrnConfig(**(good | fields))  # type: ignore[arg-type]
