"""Ablations: a table is trained and printed beside the paper's, branches come out, figures get drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import AwsrnConfig, live_config
from server.__main__ import main
from tests.conftest import ROOT
from training.networks import (
    AblationConfig,
    NetworkConfig,
    build_network,
    load_network,
    named_config,
    save_network,
    without_branches,
)
from training.paper.ablate import Row, ablate, as_table
from training.paper.ablation_tables import TABLES
from training.paper.figures import branch_outputs, lambdas


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """One image with edges and texture at all scales, just large enough for a patch."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(1)
    blocks = np.kron(rng.integers(0, 255, (12, 13, 3)), np.ones((8, 8, 1)))
    noise = rng.normal(0, 6, blocks.shape)
    Image.fromarray((blocks + noise).clip(0, 255).astype(np.uint8)).save(folder / "0.png")
    return folder


@pytest.fixture
def crop(tmp_path: Path, photographs: Path) -> Path:
    folder = tmp_path / "crop"
    folder.mkdir()
    Image.open(photographs / "0.png").crop((0, 0, 24, 20)).save(folder / "0.png")
    return folder


def small(kernels: tuple[int, ...] = (3, 5, 7, 9)) -> AblationConfig:
    return AblationConfig(
        scale=2, unit="awru", lrfu=True, kernels=kernels, lfbs=2, units=3, features=4, block_features=8
    )


def saved(path: Path, config: NetworkConfig) -> Path:
    """An untrained network whose scalars tell one from another."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for i, parameter in enumerate(p for p in network.parameters() if p.numel() == 1):
            parameter.fill_(1 - i / 10)
    save_network(path, network, config, {})
    return path


def ablation(table: str, photographs: Path, run: Path, *options: str) -> list[str]:
    folders = ["--data", str(photographs), "--out", str(run)]
    return ["ablate", table, *folders, "--iterations", "3", "--batch", "1", *options]


def test_table_1_is_trained_resumed_and_printed(
    photographs: Path, crop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ablation("table1", photographs, tmp_path / "run", "--set", f"Blocks={crop}")
    assert main(command) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][:4] == ["parameters", "added", "Mult-Adds", "Blocks"]
    assert [line[-1] for line in lines[2:5]] == ["34.99", "35.02", "35.02"]
    assert lines[3][:3] == ["wRU", "1,198,292", "+8,768"]
    assert lines[4][:3] == ["AWRU", "1,189,556", "+32"]
    psnr_db = [float(line[-2]) for line in lines[2:5]]
    assert all(5 < value < 60 for value in psnr_db)

    checkpoint = tmp_path / "run/wdsr-awru/checkpoint.safetensors"
    trained_at = load_network(checkpoint).provenance
    # Trained already: the same networks again, at once.
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [round(row["psnr_db"], 2) for row in rows] == psnr_db
    assert trained_at["iteration"] == load_network(checkpoint).provenance["iteration"] == 3


def test_a_table_needs_something_to_judge_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ablation("table2", photographs, tmp_path / "run")) == 2
    assert "--set or --validation must be given" in capsys.readouterr().err
    assert main(ablation("table2", photographs, tmp_path / "run", "--set", f"None={tmp_path}/none")) == 2
    assert "none is no folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("table", ["table2", "table3", "table4"])
def test_every_table_has_its_networks(table: str, crop: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def untrained(name: str, config: NetworkConfig) -> Path:
        asked.append(name)
        return saved(tmp_path / f"{name}.safetensors", config)

    rows = list(ablate(TABLES[table], untrained, {"Crop": crop}))
    added = {row.label: row.parameters_added for row in rows}
    lfb = 128 * 32 * 9 + 2 * 32 + 2  # an LRFU with its two λ
    awms = sum(32 * 12 * k * k + 2 * 12 for k in (5, 7, 9)) + 4  # three more branches, and four α
    match table:
        case "table2":
            assert added == {"baseline": 0, "AWSRN-NA": 4 * lfb, "AWSRN-NL": 32, "AWSRN-B": 4 * lfb + 32}
        case "table3":
            assert added == {"WDSR": 0, "WDSR with AWMS": awms, "AWSRN-B": 0, "AWSRN-B with AWMS": awms}
        case _:
            assert asked == ["wdsr-awms", "awsrn"]  # each is trained once for all its removals
            assert [row.parameters_added for row in rows[:5]] == [0, -3481, -9625, -18841, -31129]
            assert [row.parameters_added for row in rows[5:]] == [0, -3481, -9625, -18841, -31129]
            # wdsr-awms has no scalars but its α: 1.0, 0.9, 0.8, 0.7 of `saved`
            assert [row.alpha for row in rows[1:5]] == pytest.approx([1.0, 0.9, 0.8, 0.7])
            assert len({row.psnr_db for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "config", [small(), AwsrnConfig(scale=2, lfbs=1, awrus=2, features=4, block_features=8)]
)
def test_taking_out_a_branch_is_the_same_as_weighing_it_with_zero(
    config: NetworkConfig, tmp_path: Path
) -> None:
    loaded = load_network(saved(tmp_path / "net.safetensors", config))
    x = torch.rand(1, 3, 8, 7) * 255
    smaller = without_branches(loaded, {5})
    with torch.no_grad():
        loaded.network.state_dict()["tail.alphas.k5"].zero_()
        assert torch.allclose(smaller.network(x), loaded.network(x), atol=1e-4)
    with pytest.raises(ValueError, match=r"kernel 5 cannot be removed: the AWMS has \(3, 7, 9\)"):
        without_branches(smaller, {5})
    with pytest.raises(ValueError, match=r"leaves nothing of the AWMS \(3, 7, 9\)"):
        without_branches(smaller, {3, 7, 9})


def test_the_mean_is_of_the_sets() -> None:
    row = Row(
        label="x", parameters=1, parameters_added=0, mult_adds=1e9, alpha=None,
        sets={"A": 30.0, "B": 31.0}, psnr_db=30.5, paper_alpha=None, paper_psnr_db=None,
    )  # fmt: skip
    head, line = as_table([row], "").text().splitlines()
    assert head.split()[-3:] == ["mean", "paper:", "PSNR-Y"]
    assert line.split() == ["x", "1", "+0", "1.0", "G", "30.00", "31.00", "30.50", "-"]


def test_branches_of_a_trained_network_come_out_one_by_one(
    crop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = saved(tmp_path / "net.safetensors", small(kernels=(3, 7)))
    assert main(["ablate", "branches", str(checkpoint), "--set", f"Blocks={crop}", "--json"]) == 0
    whole, without_3, without_7 = json.loads(capsys.readouterr().out)["rows"]
    network = load_network(checkpoint)
    assert whole["alpha"] is None
    assert without_7["alpha"] == network.network.state_dict()["tail.alphas.k7"].item()
    assert without_7["paper_alpha"] == -0.0003
    # v, g and bias of the branch, and its α
    outputs = 3 * 2**2
    assert without_3["parameters_added"] == -(network.config.features * outputs * 9 + 2 * outputs + 1)
    assert len({row["psnr_db"] for row in (whole, without_3, without_7)}) == 3
    one = str(saved(tmp_path / "one.safetensors", small(kernels=(3,))))
    assert main(["ablate", "branches", one, "--set", f"Blocks={crop}"]) == 2
    assert "AWMS branches (3,) must be several" in capsys.readouterr().err


def test_lambdas_are_read_in_the_order_of_depth(tmp_path: Path) -> None:
    loaded = load_network(saved(tmp_path / "net.safetensors", small()))
    values = lambdas(loaded)
    assert len(values.res) == len(values.x) == 6
    assert values.res[0] == loaded.network.state_dict()["body.0.awrus.0.lambda_res"].item()
    assert values.x[-1] == loaded.network.state_dict()["body.1.awrus.2.lambda_x"].item()


@pytest.mark.parametrize("config", [small(), live_config()])
def test_branches_add_up_to_what_the_tail_draws(config: NetworkConfig, tmp_path: Path) -> None:
    loaded = load_network(saved(tmp_path / "net.safetensors", config))
    lr = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    branches = branch_outputs(loaded, lr)
    assert [branch.kernel for branch in branches] == list(config.kernels)
    total = sum(branch.output for branch in branches)
    drawn: list[torch.Tensor] = []
    loaded.network.tail.register_forward_hook(lambda *call: drawn.append(call[2]))
    branch_outputs(loaded, lr)
    assert np.abs(total - 127.5 * drawn[0][0].permute(1, 2, 0).numpy()).max() < 1e-3


def test_figures_are_drawn_as_png(tmp_path: Path, photographs: Path) -> None:
    checkpoint = str(saved(tmp_path / "net.safetensors", small()))
    image = ["--image", str(photographs / "0.png")]
    for what, options in (("figure4", []), ("figure5", image)):
        out = tmp_path / f"{what}.png"
        assert main(["ablate", what, checkpoint, str(out), *options]) == 0
        picture = np.asarray(Image.open(out).convert("L"))
        assert min(picture.shape) > 200
        assert picture.std() > 5  # something is drawn


def test_a_figure_of_a_network_without_the_part_is_refused(
    tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(saved(tmp_path / "net.safetensors", named_config("espcn", 2)))
    out, image = str(tmp_path / "out.png"), str(photographs / "0.png")
    assert main(["ablate", "figure4", checkpoint, out]) == 2
    assert "the network must have AWRUs" in capsys.readouterr().err
    assert main(["ablate", "figure5", checkpoint, out, "--image", image]) == 2
    assert "the network must have an AWMS" in capsys.readouterr().err
    assert not Path(out).exists()


def test_of_several_processes_one_judges(photographs: Path, crop: Path, tmp_path: Path) -> None:
    words = ablation("table1", photographs, tmp_path / "run", "--set", f"Blocks={crop}", "--json")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "server"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 3
