"""The GPU backends on a machine without a GPU: what is said, and what of them can run anyway."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.backends.cuda.device import device_errors
from engine.backends.gate import measure, passed, repeated
from engine.backends.tensorrt.engine import Context, Memory, profiles
from engine.errors import BackendUnavailable, DeviceFailed, EngineError, ParityError
from engine.frame import Engine, YuvFrame
from engine.load import choose, load_engine
from engine.machine import Gpu, nvidia_gpus
from engine.network.checkpoint import load_checkpoint
from server.__main__ import main

LISTING = """\
0, GPU-aaaa-1, NVIDIA L4, 23034, 8.9, 580.95.05
1, GPU-bbbb-2, NVIDIA A10, 23028, 8.6, 580.95.05
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A machine as an nvidia-smi of ours describes it: smi(what it prints, CUDA_VISIBLE_DEVICES, and what it
    prints of the parts of GPUs)."""

    def install(listing: str, visible: str | None = None, parts: str = "") -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        listed = f"if [ $1 = --list-gpus ]; then cat <<'END'\n{parts}END\nexit; fi"
        program.write_text(f"#!/bin/sh\n{listed}\ncat <<'END'\n{listing}END\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        nvidia_gpus.cache_clear()

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvidia_gpus.cache_clear()
    yield install
    nvidia_gpus.cache_clear()


without_cuda = pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")


def test_gpus_are_those_that_cuda_shows(smi: Callable[..., None]) -> None:
    smi(LISTING)
    assert nvidia_gpus()[0] == Gpu(
        index=0,
        uuid="GPU-aaaa-1",
        name="NVIDIA L4",
        memory_bytes=23034 << 20,
        compute_capability="8.9",
        driver="580.95.05",
    )
    assert str(nvidia_gpus()[1]) == "NVIDIA A10, 22 GiB, compute capability 8.6, driver 580.95.05"


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1,0", [1, 0]), ("GPU-bbbb", [1]), ("", []), ("-1", []), ("1,7,0", [1]), ("GPU-cccc", [])],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    smi: Callable[..., None], visible: str, indices: list[int]
) -> None:
    smi(LISTING, visible)
    assert [gpu.index for gpu in nvidia_gpus()] == indices


DIVIDED = """\
GPU 0: NVIDIA L4 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA A10 (UUID: GPU-bbbb-2)
  MIG 3g.20gb     Device  0: (UUID: MIG-7777-0)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-8888-1)
"""


def test_a_gpu_that_mig_has_divided_is_its_parts(smi: Callable[..., None]) -> None:
    smi(LISTING, parts=DIVIDED)
    whole, large, small = nvidia_gpus()
    assert (whole.uuid, whole.number) == ("GPU-aaaa-1", "0")
    assert (large.uuid, large.number, large.name) == ("MIG-7777-0", "1:0", "NVIDIA A10 MIG 3g.20gb")
    assert (small.uuid, small.number, small.memory_bytes) == ("MIG-8888-1", "1:1", 5 * 10**9)


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [("MIG-8888-1", ["1:1"]), ("MIG-8,0", ["1:1", "0"]), ("1", ["1:0"]), ("GPU-bbbb-2", []), ("MIG-", [])],
)
def test_cuda_visible_devices_may_name_parts(
    smi: Callable[..., None], visible: str, numbers: list[str]
) -> None:
    smi(LISTING, visible, parts=DIVIDED)
    assert [gpu.number for gpu in nvidia_gpus()] == numbers


def test_a_gpu_that_shares_the_machines_memory(smi: Callable[..., None]) -> None:
    smi("0, GPU-c, NVIDIA GB10, [N/A], 12.1, 580.95\n")
    assert str(nvidia_gpus()[0]) == "NVIDIA GB10, compute capability 12.1, driver 580.95"


@pytest.mark.parametrize("listing", ["", "No devices were found\n", "NVIDIA-SMI has failed, because\n"])
def test_a_driver_without_gpus(smi: Callable[..., None], listing: str) -> None:
    smi(listing)
    assert nvidia_gpus() == ()


@pytest.mark.parametrize("backend", ["tensorrt", "cuda"])
def test_without_a_gpu_one_sentence_says_so(smi: Callable[..., None], checkpoint: Path, backend: str) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        load_engine(checkpoint, width=64, height=48, backend=backend)
    assert str(caught.value) == f"backend={backend!r} needs an NVIDIA GPU, and nvidia-smi shows none here"
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA GPU"):
        choose(checkpoint, None, "fp16")
    with pytest.raises(BackendUnavailable, match=f"{backend!r} runs in fp16.*, not in bf16"):
        choose(checkpoint, backend, "bf16")


def run(code: str, *folders: Path) -> str:
    """What another Python, whose modules come from these folders first, says of the code."""
    script = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@without_cuda
@pytest.mark.parametrize("installed", [False, True])
def test_a_gpu_without_the_software_for_it(
    smi: Callable[..., None], checkpoint: Path, tmp_path: Path, installed: bool
) -> None:
    """Also where wheels of TensorRT are there, but not their libraries."""
    smi(LISTING)
    if installed:
        for package in ("tensorrt", "torch_tensorrt"):
            (tmp_path / "wheels" / package).mkdir(parents=True)
            broken = "raise OSError('libnvinfer.so.11: cannot open shared object file')"
            (tmp_path / "wheels" / package / "__init__.py").write_text(broken)
    said = run(
        "import engine.backends.cuda.engine, engine.backends.tensorrt.engine\n"
        "from engine.errors import BackendUnavailable\n"
        "from engine.load import load_engine\n"
        "for backend in ('tensorrt', 'cuda'):\n"
        f"    try: load_engine({str(checkpoint)!r}, width=64, height=48, backend=backend)\n"
        "    except BackendUnavailable as exc: print(exc)",
        tmp_path / "wheels",
    )
    needs_cuda = f"needs CUDA, and PyTorch {torch.__version__} is built without CUDA"
    needs = {
        "tensorrt": needs_cuda if installed else "needs tensorrt, which is not installed",
        "cuda": needs_cuda,
    }
    assert said.splitlines() == [
        f"backend={backend!r} {needed}: pip install 'livesr[gpu]'" for backend, needed in needs.items()
    ]


def test_tensorrt_whose_libraries_are_missing(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')")
    said = run(
        "from engine.backends.tensorrt.engine import load_tensorrt\n"
        "from engine.errors import BackendUnavailable\n"
        "try: load_tensorrt()\n"
        "except BackendUnavailable as exc: print(exc)",
        tmp_path,
    )
    assert said == (
        "backend='tensorrt' needs tensorrt, which fails to load "
        "(libnvinfer.so.11: cannot open shared object file): pip install 'livesr[gpu]'"
    )


def test_without_torch_a_gpu_is_left_alone_and_the_choice_says_why(smi: Callable[..., None]) -> None:
    """The server's way: an artifact by its name, and no checkpoint is ever opened."""
    smi(LISTING)
    said = run(
        "sys.modules['torch'] = None\n"
        "from engine.load import choose\n"
        "choice = choose('awsrn-live-x2', None, None)\n"
        "print(choice.backend, choice.precision, choice.why, sep='|')"
    )
    backend, precision, why = said.split("|")
    assert (backend, precision) == ("openvino", "int8")
    assert "the NVIDIA GPU is not used: backend='cuda' needs torch, which is not installed" in why


@without_cuda
def test_a_gpu_that_cannot_be_used_is_said_in_the_log(
    smi: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    smi(LISTING)
    engine = load_engine("awsrn-live-x2", width=64, height=48)
    assert engine.spec.backend == "openvino"
    assert "the NVIDIA GPU is not used" in caplog.text


def test_without_a_gpu_serving_imports_no_torch(smi: Callable[..., None]) -> None:
    said = run(
        "from engine.load import load_engine\n"
        "spec = load_engine('awsrn-live-x2', width=64, height=48, lanes=0).spec\n"
        "print(spec.backend, spec.lanes, 'torch' in sys.modules)"
    )
    assert said == "openvino 3 False"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "the GPU is out of memory here: CUDA out of memory",
        ),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nmore"),
            "the GPU failed here: CUDA error",
        ),
    ],
)
def test_a_failed_gpu_is_no_failed_model(error: Exception, said: str) -> None:
    """A model that can't run fails its stream for good; a GPU only ends the process, and another starts."""
    with pytest.raises(DeviceFailed, match=said) as caught, device_errors("here"):
        raise error
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, EngineError)
    with pytest.raises(ValueError, match="a surface"), device_errors("here"):
        raise ValueError("a surface")


def test_the_gate_lets_pass_what_is_close_and_says_how_close(checkpoint: Path) -> None:
    close = load_engine(checkpoint, width=340, height=44, precision="bf16")
    parity = measure(close, reference_for(checkpoint), load_checkpoint(checkpoint).config.reach)
    assert 40 < parity < 100
    assert passed(close.spec, 57.123).parity_db == 57.12
    with pytest.raises(ParityError, match=r"luma in bf16 on openvino is 54\.9 dB .* must be at least 55 dB"):
        passed(close.spec, 54.9)


def reference_for(checkpoint: Path) -> Callable[[int, int], Engine]:
    return lambda width, height: load_engine(checkpoint, width=width, height=height, backend="reference")


def test_the_reference_computes_no_more_of_a_large_frame_than_it_has_memory_for(checkpoint: Path) -> None:
    """And what is compared is as if it had computed all: of a window's cut nothing is seen."""
    asked = []

    def reference(width: int, height: int) -> Engine:
        asked.append((width, height))
        return reference_for(checkpoint)(width, height)

    whole = reference_for(checkpoint)(200, 140)
    reach = load_checkpoint(checkpoint).config.reach
    assert measure(whole, reference, reach, most=(72, 64)) > 90, "float32 itself, but for its rounding"
    assert asked == [(72, 64)]
    assert measure(whole, reference, -4, most=(72, 64)) < 80, "control: the cut of a window is seen"


def test_a_network_that_depends_on_the_whole_picture_is_compared_on_it(checkpoint: Path) -> None:
    asked = []

    def reference(width: int, height: int) -> Engine:
        asked.append((width, height))
        return reference_for(checkpoint)(width, height)

    assert measure(reference_for(checkpoint)(200, 140), reference, None, most=(72, 64)) > 90
    assert asked == [(200, 140)]


def test_a_small_picture_fills_a_large_frame(noise: Callable[..., YuvFrame]) -> None:
    large = repeated(noise(8, 6), 20, 10)
    assert large.y.shape == (10, 20)
    np.testing.assert_array_equal(large.y[6:], large.y[:4])
    np.testing.assert_array_equal(large.u[:, 4:8], large.u[:, :4])


@without_cuda
def test_doctor_says_of_each_engine_why_it_does_not_run(
    smi: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    smi(LISTING)
    assert main(["doctor"]) == 0
    report = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert "NVIDIA L4, 22 GiB, compute capability 8.9, driver 580.95.05; NVIDIA A10" in report["GPU"]
    assert "does not work: backend='tensorrt' needs tensorrt, which is not installed" in report["tensorrt"]
    assert "the NVIDIA GPU is not used: backend='cuda' needs CUDA" in report["awsrn-live-x2"]


class ScriptedContext:
    """TensorRT's execution context, as far as memory goes: it needs 100 bytes for each pixel of its luma."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.given: list[tuple[int, int]] = []
        self.profile = 0
        self.frames = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        return address != 0

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shapes.keys() == {"y_in", "uv_in"}, "it does not know its frames yet"
        return 100 * math.prod(self.shapes["y_in"])

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        self.given.append((address, size))

    def execute_async_v3(self, stream: int) -> bool:
        assert self.given, "it has no memory"
        self.frames += 1
        return True


def test_a_lane_takes_memory_for_its_own_frames_not_for_the_plans_largest(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan up to 1920×1080 would take nine times as much for each lane of a 640×360 stream."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=1))
    spec = choose(checkpoint, "reference", None).spec(64, 48)
    scripted = ScriptedContext()
    names = {name: name for name in ("y_in", "uv_in", "y_out", "uv_out")}
    memory = Memory()
    context = Context(scripted, spec, names, None, profile=0, memory=memory)
    frame = torch.zeros(1, 1, 48, 64, dtype=torch.uint8), torch.zeros(1, 2, 24, 32, dtype=torch.uint8)
    for _ in range(2):
        y, uv = context(*frame)
        assert (y.shape, uv.shape) == ((1, 1, 96, 128), (1, 2, 48, 64))
    ((_, size),) = scripted.given
    assert (size, scripted.frames) == (100 * 64 * 48, 2)


def test_the_contexts_of_a_lane_share_what_the_largest_batch_needs(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=1))
    spec = choose(checkpoint, "reference", None).spec(64, 48)
    names = {name: name for name in ("y_in", "uv_in", "y_out", "uv_out")}
    memory, taken = Memory(), set()
    for profile, count in ((2, 4), (1, 2), (0, 1)):
        scripted = ScriptedContext()
        context = Context(scripted, spec, names, None, profile=profile, memory=memory)
        y, uv = (
            torch.zeros(count, n, *size, dtype=torch.uint8) for n, size in ((1, (48, 64)), (2, (24, 32)))
        )
        assert [len(plane) for plane in context(y, uv)] == [count, count]
        assert scripted.profile == profile
        ((address, size),) = scripted.given
        assert size == count * 100 * 64 * 48
        taken.add(address)
    assert len(taken) == 1


def test_a_plan_says_which_profile_is_for_how_many_frames() -> None:
    def plan(*batches: int) -> SimpleNamespace:
        shapes = [3 * [(batch, 1, 48, 64)] for batch in batches]
        return SimpleNamespace(
            num_optimization_profiles=len(batches), get_tensor_profile_shape=lambda name, i: shapes[i]
        )

    assert profiles(plan(1, 2, 4), "y_in") == {1: 0, 2: 1, 4: 2}
    assert profiles(plan(1), "y_in") == {1: 0}
