"""`livesr build --backend tensorrt` on a machine without a GPU: what it asks for and what it says."""

import argparse
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch

from engine.backends.tensorrt.builds import ensure_artifact
from engine.backends.tensorrt.request import BuildRequest, Sizes, Target
from engine.batches import batch_sizes
from engine.commands import build, build_tensorrt
from engine.errors import BuildFailed
from engine.frame import Colour, Matrix
from engine.network.checkpoint import load_checkpoint
from engine.shipped import shipped_checkpoint, zoo
from server.__main__ import main
from tests.conftest import ROOT

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without an NVIDIA GPU")


@without_gpu
def test_a_machine_without_a_gpu_builds_nothing_and_says_why(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    words = [
        "build",
        str(checkpoint),
        str(tmp_path / "artifacts"),
        "--backend",
        "tensorrt",
        "--size",
        "64x48",
    ]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("livesr build: backend='tensorrt' needs an NVIDIA GPU")
    assert error.count("\n") == 1
    assert not (tmp_path / "artifacts").exists()


@without_gpu
def test_the_builders_own_words_reach_who_asked(checkpoint: Path, tmp_path: Path) -> None:
    request = BuildRequest(
        checkpoint=checkpoint,
        checkpoint_sha256=load_checkpoint(checkpoint).sha256,
        kind="y",
        colour=Colour(),
        sizes=Sizes.only(64, 48),
        target=Target(
            gpu="NVIDIA L4", compute_capability="8.9", tensorrt="11", torch="2.13", torch_tensorrt="2.13"
        ),
    )
    with pytest.raises(BuildFailed, match=r"\(exit status 2\): backend='tensorrt' needs CUDA"):
        ensure_artifact(request, tmp_path / "artifacts", timeout_s=120)


def test_a_builder_whose_parent_is_gone_goes_on_with_its_work() -> None:
    code = (
        "from engine.backends.tensorrt.build import Stages; import sys\n"
        "say = Stages(); print('a library'); say('one'); sys.stdin.read(); say('two')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, cwd=ROOT) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"one\n"
        builder.stdout.close()
        builder.stdin.close()
    assert builder.returncode == 0


def test_all_leaves_nothing_to_be_built_at_the_first_stream() -> None:
    """Whatever the source: every model that ships, each matrix and range of those that look at colour, and
    any size that a source may have, upright too."""
    target = Target(
        gpu="NVIDIA L4", compute_capability="8.9", tensorrt="11", torch="2.13", torch_tensorrt="2.13"
    )
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    built = list(build_tensorrt.requests(parser.parse_args(["--all"]), target))
    for name in zoo():
        checkpoint = load_checkpoint(shipped_checkpoint(name))
        for matrix, full_range in product(get_args(Matrix), (False, True)):
            for width, height in ((64, 64), (640, 360), (1280, 720), (1920, 1080), (1080, 1920)):
                wanted = BuildRequest(
                    checkpoint=Path("elsewhere"),
                    checkpoint_sha256=checkpoint.sha256,
                    kind=checkpoint.config.colour,
                    colour=Colour(matrix=matrix, full_range=full_range),
                    sizes=Sizes.only(width, height),
                    target=target,
                )
                assert any(
                    replace(wanted, sizes=one.sizes, batches=one.batches).digest == one.digest
                    and one.sizes.takes(width, height)
                    and set(batch_sizes(width, height)) <= set(one.batches)
                    for one in built
                ), wanted
    assert len(built) == len({one.digest for one in built})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.safetensors", "out", "--backend", "tensorrt"], "needs --size or --dynamic"),
        (
            ["--backend", "tensorrt", "--size", "64x48"],
            "either --all or a checkpoint and the folder to write",
        ),
        (
            ["a.safetensors", "--all", "--size", "64x48"],
            "either --all or a checkpoint and the folder to write",
        ),
        (["a.safetensors", "--backend", "tensorrt", "--size", "64x48"], "needs the folder to write"),
        (["--all", "--size", "64x48", "--precision", "bf16"], "runs in fp16 or int8, not in bf16"),
        (["a.safetensors"], "needs a checkpoint and the folder to write"),
    ],
)
def test_what_does_not_go_together_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["build", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "640"], "'640' must be WIDTHxHEIGHT"),
        (["--dynamic", "64x64:32x32:640x640"], "64x64 is larger than 32x32"),
        (["--dynamic", "64x64:640x360"], "must be WIDTHxHEIGHT or SMALLEST:TYPICAL:LARGEST"),
    ],
)
def test_sizes_are_read_with_care(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--all", *words])
    assert message in capsys.readouterr().err
