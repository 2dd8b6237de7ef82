"""What every test may use: the optional data beside the checkout, and what to do where a peer is missing."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from engine.machine import nvidia_gpus

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
NOT_DONE = "not done: "

with suppress(ModuleNotFoundError):  # the checks of TensorRT and of a cluster run without it
    from hypothesis import settings

    # How long an example takes is the machine's affair.
    settings.register_profile("livesr", deadline=None)
    settings.load_profile("livesr")


def shared(relative: str) -> Path:
    """A file or folder of the test data beside the checkout; skips the test where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"no test data: {relative} is not beside the checkout")
    return path


def missing_peer(name: str, how: str) -> NoReturn:
    """Skips the test for want of an independent program; fails it where REQUIRE_PEERS=1 promises them all."""
    message = f"{name} is not installed: {how}"
    if os.environ.get("REQUIRE_PEERS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def pytest_configure(config: pytest.Config) -> None:
    """What is tested is the same on every machine: a GPU is seen only by the tests that are for it."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a GPU whole streams go first: where these fail, the rest says why at most."""
    if config.getoption("markexpr") == "gpu":
        items.sort(key=lambda item: item.path.name != "test_stream.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked `gpu` where there is none; fails it where FAIL_WITHOUT_CUDA=1 promises one."""
    if item.get_closest_marker("gpu") is not None and (reason := no_cuda()):
        missing_gpu(reason)


def no_cuda() -> str:
    """Why no test can use a GPU here; "" where one can."""
    if not nvidia_gpus():
        return "no NVIDIA GPU here: nvidia-smi shows none"
    import torch  # large, and not on every machine

    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} can use no GPU here"


def not_done(reason: str) -> NoReturn:
    """Skips a test for want of what this GPU or its machine has not, such as TensorRT or NVENC; the rest of
    the check counts. `pytest_terminal_summary` says what was not done."""
    pytest.skip(f"{NOT_DONE}{reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(
        str(report.longrepr[2]).partition(NOT_DONE)[2]
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple) and NOT_DONE in report.longrepr[2]
    )
    if reasons:
        terminalreporter.section("not done on this GPU")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} tests: {reason}")


def missing_gpu(reason: str) -> NoReturn:
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"FAIL_WITHOUT_CUDA=1, but {reason}", pytrace=False)
    pytest.skip(reason)
