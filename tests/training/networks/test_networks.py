"""Every network has the published counts, enlarges by its scale, trains, and comes back from its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import live_config, paper_config
from engine.errors import InvalidCheckpoint, ModelNotFound
from engine.network.checkpoint import load_checkpoint
from tests.conftest import shared
from training.data.resize import crop_to_multiple, downscale, upscale_bicubic
from training.networks import (
    ABLATIONS,
    BASELINES,
    AblationConfig,
    BaselineConfig,
    build_network,
    config_from_dict,
    counts,
    load_network,
    named_config,
    save_network,
)
from training.quality import psnr, rgb_to_y

NAMES = (*BASELINES, *ABLATIONS, "awsrn-s")


# Paper, table 5: parameters in thousands, Mult-Adds in G.
@pytest.mark.parametrize(
    ("name", "scale", "thousands", "giga_mult_adds"),
    [
        *(("srcnn", scale, 57, 52.7) for scale in (2, 3, 4, 8)),
        ("fsrcnn", 2, 12, 6.0),
        ("fsrcnn", 3, 12, 5.0),
        ("fsrcnn", 4, 12, 4.6),
        *(("vdsr", scale, 665, 612.6) for scale in (2, 3, 4, 8)),
        ("carn", 2, 1592, 222.8),  # the table's 1,513K at ×2 is the row above it once more
        ("carn", 3, 1592, 118.8),
        ("carn", 4, 1592, 90.9),
        ("awsrn-s", 2, 397, 91.2),
        ("awsrn-sd", 4, 444, 25.4),
        ("awsrn", 8, 2348, 33.7),
    ],
)
def test_counts_are_those_of_table_5(name: str, scale: int, thousands: int, giga_mult_adds: float) -> None:
    cost = counts(named_config(name, scale))
    # FSRCNN and VDSR are listed cut off, not rounded.
    assert thousands in (round(cost.parameters / 1e3), cost.parameters // 1000)
    assert round(cost.mult_adds / 1e9, 1) == giga_mult_adds


@pytest.mark.parametrize(("scale", "giga_mult_adds"), [(2, 91.2), (3, 46.1), (4, 32.5)])
def test_carn_m_is_listed_without_its_biases(scale: int, giga_mult_adds: float) -> None:
    config = named_config("carn-m", scale)
    biases = sum(p.numel() for n, p in build_network(config).named_parameters() if n.endswith("bias"))
    assert round((counts(config).parameters - biases) / 1e3) == 412
    assert round(counts(config).mult_adds / 1e9, 1) == giga_mult_adds


def test_fsrcnn_at_x8_costs_less_than_listed() -> None:
    # The table repeats ×4's 4.6 G.
    assert round(counts(named_config("fsrcnn", 8)).mult_adds / 1e9, 1) == 4.3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_awsrn_counts_agree_with_its_configuration(scale: int) -> None:
    config = paper_config("awsrn-sd", scale)
    assert counts(config).parameters == config.parameters
    assert counts(config).mult_adds == config.mult_adds


def test_residual_units_differ_as_in_table_1() -> None:
    basic, wru, awru = (counts(named_config(n, 2)) for n in ("wdsr", "wdsr-wru", "wdsr-awru"))
    assert wru.parameters - basic.parameters == 8768
    assert awru.parameters - basic.parameters == 32
    assert awru.mult_adds == basic.mult_adds


def test_an_lfb_without_lrfu_is_a_chain_of_awrus() -> None:
    assert named_config("awsrn-nl", 2) == named_config("wdsr-awru", 2)
    # 4 × (weights, g and bias of 128 → 32, and two λ)
    with_lrfu, without = (counts(named_config(n, 2)) for n in ("awsrn-b", "awsrn-nl"))
    assert with_lrfu.parameters - without.parameters == 4 * (128 * 32 * 9 + 2 * 32 + 2)
    na = counts(named_config("awsrn-na", 2))
    assert with_lrfu.parameters - na.parameters == 32


def test_awsrn_b_with_awms_is_the_papers_awsrn() -> None:
    config = AblationConfig(scale=2, unit="awru", lrfu=True, kernels=(3, 5, 7, 9))
    assert counts(config) == counts(paper_config("awsrn", 2))
    state = build_network(paper_config("awsrn", 2)).state_dict()
    assert state.keys() == build_network(config).state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_every_network_enlarges_by_its_scale(name: str, scale: int) -> None:
    if scale == 8 and name.startswith("carn"):
        with pytest.raises(ValueError, match=r"scale=8 must be one of \(2, 3, 4\) for carn"):
            named_config(name, scale)
        return
    config = named_config(name, scale)
    channels = 3 if config.colour == "rgb" else 1
    with torch.inference_mode():
        sr = build_network(config)(torch.rand(2, channels, 5, 7) * 255)
    assert sr.shape == (2, channels, 5 * scale, 7 * scale)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bicubic", "lanczos"}))
def test_every_weight_takes_part_in_training(name: str) -> None:
    config = named_config(name, 2)
    network = build_network(config)
    network(torch.rand(1, 3 if config.colour == "rgb" else 1, 6, 6) * 255).sum().backward()
    for weight, parameter in network.named_parameters():
        idle = name.startswith("carn") and weight.startswith(("upsamplers.x3", "upsamplers.x4"))
        assert parameter.requires_grad != idle, weight
        assert idle or (parameter.grad is not None and torch.isfinite(parameter.grad).all()), weight


@pytest.mark.parametrize("name", NAMES)
def test_a_network_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    config = named_config(name, 2)
    network, path = build_network(config).eval(), tmp_path / "net.safetensors"
    save_network(path, network, config, {"minutes": 3})
    loaded = load_network(path)
    assert loaded.config == config
    assert loaded.provenance == {"minutes": 3}
    x = torch.rand(1, 3 if config.colour == "rgb" else 1, 6, 5) * 255
    with torch.inference_mode():
        assert torch.equal(loaded.network(x), network(x))


def test_awsrn_is_saved_in_the_engines_own_format(tmp_path: Path) -> None:
    config = live_config()
    save_network(tmp_path / "net.safetensors", build_network(config), config, {})
    assert load_checkpoint(tmp_path / "net.safetensors").config == config
    espcn = BaselineConfig(kind="espcn", scale=2)
    save_network(tmp_path / "espcn.safetensors", build_network(espcn), espcn, {})
    with pytest.raises(InvalidCheckpoint, match="has format 'livesr-network-1'"):
        load_checkpoint(tmp_path / "espcn.safetensors")


def test_files_that_are_no_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.safetensors does not exist"):
        load_network(tmp_path / "none.safetensors")
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"no network")
    with pytest.raises(InvalidCheckpoint, match=r"net\.safetensors is no safetensors file"):
        load_network(path)
    # The weights of another network than the configuration says.
    save_network(path, build_network(named_config("espcn", 2)), named_config("srcnn", 2), {})
    with pytest.raises(InvalidCheckpoint, match=r"(?s)net\.safetensors does not fit .*srcnn.*conv1"):
        load_network(path)


@pytest.mark.parametrize("config", [*(named_config(n, 2) for n in NAMES), live_config()])
def test_a_configuration_comes_back_from_its_fields(config: AblationConfig) -> None:
    assert config_from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"kind": "edsr", "scale": 2}, "kind='edsr' must be one of bicubic, "),
        ({"kind": "srcnn", "scale": 5}, r"scale=5 must be one of \(2, 3, 4, 8\) for srcnn"),
        ({"unit": "relu", "scale": 2, "lrfu": True, "kernels": []}, "unit='relu' must be one of basic, "),
        ({"unit": "wru", "scale": 2, "lrfu": True, "kernels": [4]}, r"kernels=\(4,\) must be odd"),
        ({"unit": "wru", "scale": 2, "lrfu": True, "kernels": [], "units": 0}, "awrus=0 must be at least 1"),
    ],
)
def test_a_config_names_the_rule_it_breaks(fields: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        config_from_dict(fields)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"variant='edsr' must be one of awsrn-s, .*, or one of bicubic, .*wdsr"
    ):
        named_config("edsr", 2)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_is_matlabs(scale: int) -> None:
    image = np.random.default_rng(0).integers(60, 200, (9, 7, 3), dtype=np.uint8)
    sr = build_network(BaselineConfig(kind="bicubic", scale=scale))(
        torch.from_numpy(image).permute(2, 0, 1)[None].float()
    )
    theirs = upscale_bicubic(image, scale).transpose(2, 0, 1)
    # Theirs is rounded twice: after each pass.
    assert np.abs(sr[0].numpy() - theirs).max() < 1.6


def test_lanczos_beats_bicubic_on_photographs() -> None:
    names = ("bicubic", "lanczos")
    values: dict[str, list[float]] = {name: [] for name in names}
    for file in sorted(shared("data/Set5/HR").glob("*.png"))[:3]:
        hr = crop_to_multiple(np.asarray(Image.open(file)), 2)
        lr = torch.from_numpy(downscale(hr, 2)).permute(2, 0, 1)[None].float()
        for name in names:
            sr = build_network(BaselineConfig(kind=name, scale=2))(lr)[0].permute(1, 2, 0).numpy()
            pixels = sr.clip(0, 255).round().astype(np.uint8)
            values[name].append(psnr(rgb_to_y(pixels), rgb_to_y(hr)))
    assert np.mean(values["lanczos"]) > np.mean(values["bicubic"]) + 0.2
