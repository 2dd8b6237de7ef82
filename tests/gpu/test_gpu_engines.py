"""What a GPU engine must do beyond what the simulated device shows: the right picture, without waiting."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.backends.cuda import choose_lanes
from engine.backends.tensorrt.builds import ensure_artifact
from engine.backends.tensorrt.request import BuildRequest, Sizes
from engine.errors import DeviceFailed, PlanRefused
from engine.frame import Colour, DeviceFrame, GpuEngine, YuvFrame
from engine.load import choose, load_engine
from engine.parity import LOWEST_DB, parity_db
from engine.sample_frames import DEFAULT, HEIGHT, WIDTH, sample_frames
from engine.share import SharedEngine
from tests.conftest import not_done
from tests.gpu.conftest import gpu_problem

pytestmark = pytest.mark.gpu
Load = Callable[..., GpuEngine]


@pytest.fixture
def frames() -> list[YuvFrame]:
    return [sample.yuv() for sample in sample_frames(DEFAULT)]


def same(a: YuvFrame, b: YuvFrame) -> bool:
    return all(np.array_equal(p, q) for p, q in ((a.y, b.y), (a.u, b.u), (a.v, b.v)))


def copied(frame: YuvFrame) -> YuvFrame:
    return YuvFrame(y=frame.y.copy(), u=frame.u.copy(), v=frame.v.copy())


def one_by_one(engine: GpuEngine, frames: list[YuvFrame]) -> list[YuvFrame]:
    lane, results = engine.lane(), []
    for frame in frames:
        lane.submit(frame)
        results.append(copied(lane.wait()))
    return results


def test_pictures_are_those_of_the_float32_reference(load: Load, frames: list[YuvFrame]) -> None:
    engine = load(WIDTH, HEIGHT)
    reference = load_engine("awsrn-live-x2", width=WIDTH, height=HEIGHT, backend="reference")
    assert parity_db(engine, reference, frames) >= LOWEST_DB["fp16"]
    assert engine.spec.parity_db is not None
    assert (engine.spec.precision, engine.spec.lanes) == ("fp16", 1)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_lanes_beside_each_other_give_what_one_gives(load: Load, frames: list[YuvFrame], count: int) -> None:
    engine = load(WIDTH, HEIGHT)
    expected = one_by_one(engine, frames)
    lanes = [engine.lane() for _ in range(count)]
    for turn in range(20 * len(frames) + count):
        lane = lanes[turn % count]
        if turn >= count:
            assert same(lane.wait(), expected[(turn - count) % len(frames)])
        if turn < 20 * len(frames):
            lane.submit(frames[turn % len(frames)])


@pytest.mark.parametrize("streams", [2, 3, 8])
def test_frames_of_several_streams_in_a_batch_are_what_each_is_alone(
    load: Load, frames: list[YuvFrame], streams: int
) -> None:
    """Within a level or two: another size of a batch may have another kernel. Would show graphs that share
    memory while both are needed, a batch's rows mixed up, and a profile that is another batch's."""
    engine = load(WIDTH, HEIGHT)
    shared, expected = SharedEngine(engine), one_by_one(engine, frames)
    lanes = [shared.join(10.0).lane() for _ in range(streams)]
    for turn in range(5):
        for number, lane in enumerate(lanes):
            lane.submit(frames[(turn + number) % len(frames)])
        for number, lane in enumerate(lanes):
            wanted, got = expected[(turn + number) % len(frames)], lane.wait()
            assert np.abs(got.y.astype(int) - wanted.y).max() <= 2
            assert np.abs(got.u.astype(int) - wanted.u).max() <= 2


def test_host_frames_and_surfaces_share_a_batch(load: Load, frames: list[YuvFrame]) -> None:
    import torch

    engine = load(WIDTH, HEIGHT)
    shared, expected = SharedEngine(engine), one_by_one(engine, frames[:2])
    host, other = shared.join(10.0).lane(), shared.join(10.0)
    assert isinstance(other, GpuEngine)
    surface_lane = other.surface_lane()
    y = torch.from_numpy(frames[1].y).cuda()
    uv = torch.from_numpy(np.stack([frames[1].u, frames[1].v], -1)).cuda()
    host.submit(frames[0])
    surface_lane.submit(DeviceFrame(y=y, uv=uv, width=WIDTH, height=HEIGHT))
    assert np.abs(host.wait().y.astype(int) - expected[0].y).max() <= 2
    surface = surface_lane.wait()
    luma = torch.utils.dlpack.from_dlpack(surface.y.__dlpack__(stream=None)).cpu().numpy()
    assert np.abs(luma.astype(int) - expected[1].y).max() <= 2


def test_submitting_never_waits_for_the_gpu(load: Load, frames: list[YuvFrame]) -> None:
    import torch

    lanes = [load(WIDTH, HEIGHT).lane() for _ in range(2)]
    for lane in lanes:  # what is done once only
        lane.submit(frames[0])
        lane.wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for lane in lanes:
            lane.submit(frames[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for lane in lanes:
        lane.wait()


def test_frames_that_stay_on_the_gpu_are_the_same(load: Load, frames: list[YuvFrame]) -> None:
    """In by DLPack with a pitch, as NVDEC has it; out as NV12."""
    import torch

    engine = load(WIDTH, HEIGHT)
    expected = one_by_one(engine, frames)
    lane, held = engine.surface_lane(), []
    writer = torch.cuda.Stream()
    for frame in frames:
        source = torch.from_numpy(frame.y).cuda(), torch.from_numpy(np.stack([frame.u, frame.v], -1)).cuda()
        torch.cuda.synchronize()
        with torch.cuda.stream(writer):
            y = torch.zeros(HEIGHT, 512, dtype=torch.uint8, device="cuda")[:, :WIDTH]
            uv = torch.zeros(HEIGHT // 2, 256, 2, dtype=torch.uint8, device="cuda")[:, : WIDTH // 2]
            torch.cuda._sleep(10_000_000)  # written late: the lane has to wait for the writer's stream
            y.copy_(source[0])
            uv.copy_(source[1])
        lane.submit(DeviceFrame(y=y, uv=uv, width=WIDTH, height=HEIGHT, stream=writer.cuda_stream))
        held.append(lane.wait())
    for surface, wanted in zip(held, expected, strict=True):
        y, uv = (
            torch.utils.dlpack.from_dlpack(p.__dlpack__(stream=None)).cpu() for p in (surface.y, surface.uv)
        )
        planes = y.numpy(), uv[..., 0].numpy(), uv[..., 1].numpy()
        assert same(YuvFrame(y=planes[0], u=planes[1], v=planes[2]), wanted)


def test_a_host_frame_goes_to_a_surface_and_a_surface_to_the_host(load: Load, frames: list[YuvFrame]) -> None:
    engine = load(WIDTH, HEIGHT)
    to_surface, [expected] = engine.surface_lane(), one_by_one(engine, frames[:1])
    to_surface.submit(frames[0])
    surface = to_surface.wait()
    assert (surface.width, surface.height) == (2 * WIDTH, 2 * HEIGHT)
    large = load(2 * WIDTH, 2 * HEIGHT)
    lane = large.lane()
    lane.submit(surface)
    assert same(copied(lane.wait()), one_by_one(large, [expected])[0])


def test_the_number_of_lanes_is_the_manifests(load: Load) -> None:
    """Loading never measures: that would take the whole GPU, beside live streams, for seconds."""
    load(WIDTH, HEIGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose_lanes, "run_trial", None)
        spec = load(WIDTH, HEIGHT, lanes=0).spec
    assert 1 <= spec.lanes <= 4
    assert 1 <= spec.surface_lanes <= 4
    if spec.backend == "tensorrt":
        assert spec.performance is not None
        assert spec.performance.host.frame_ms.keys() == spec.performance.surface.frame_ms.keys()
        assert spec.performance.memory_bytes(on_gpu=True) > 0


def test_a_lane_of_a_plan_for_many_sizes_takes_memory_for_its_own(artifacts: Path) -> None:
    """By itself TensorRT gives each context what the largest frames need: here eight times as much."""
    from engine.backends.tensorrt.target import current_target

    if problem := gpu_problem("tensorrt"):
        not_done(problem)
    choice = choose("awsrn-live-x2", "tensorrt", None)
    request = BuildRequest(
        checkpoint=choice.path,
        checkpoint_sha256=choice.source.sha256,
        kind="y",
        colour=Colour(),
        sizes=Sizes(smallest=(64, 64), typical=(640, 360), largest=(1920, 1080)),
        target=current_target(),
    )
    artifact = ensure_artifact(request, artifacts, timeout_s=1800)
    smallest, largest = (artifact.performance(*size).surface.lane_bytes for size in ((64, 64), (1920, 1080)))
    assert smallest < largest / 4


@pytest.mark.parametrize("load", ["tensorrt"], indirect=True)
def test_a_plan_that_is_refused_is_built_once_more(load: Load, artifacts: Path) -> None:
    """One whose manifest fits it, but which this TensorRT does not take, failed the stream at every start."""
    load(WIDTH, HEIGHT)
    for manifest in artifacts.glob("*/manifest.json"):
        fields = json.loads(manifest.read_text())
        if fields["request"]["sizes"] == f"{WIDTH}x{HEIGHT}":
            plan = b"noise" * 1000
            (manifest.parent / "engine.plan").write_bytes(plan)
            fields["sha256"] = hashlib.sha256(plan).hexdigest()
            manifest.write_text(json.dumps(fields))
    assert load(WIDTH, HEIGHT).spec.parity_db >= LOWEST_DB["fp16"]


def test_an_artifact_that_is_there_is_loaded_and_its_parity_known(load: Load, artifacts: Path) -> None:
    first = load(WIDTH, HEIGHT)
    before = {path: path.stat().st_mtime_ns for path in artifacts.rglob("*") if path.is_file()}
    assert load(WIDTH, HEIGHT).spec.parity_db == pytest.approx(first.spec.parity_db, abs=0.01)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in artifacts.rglob("*") if p.is_file()}.items()


@pytest.fixture
def little_memory() -> Iterator[None]:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_gpu_that_is_full_says_so(load: Load, little_memory: None) -> None:
    with pytest.raises(DeviceFailed, match="the GPU is out of memory"):
        load(1280, 720).lane()


@pytest.mark.parametrize("load", ["tensorrt"], indirect=True)
def test_the_body_in_int8_keeps_the_picture(load: Load, frames: list[YuvFrame]) -> None:
    """Whether TensorRT's INT8 kernels do what the arithmetic on the CPU promises: round half to even, clip at
    -128 and 127, and sum up exactly."""
    engine = load(WIDTH, HEIGHT, precision="int8")
    reference = load_engine("awsrn-live-x2", width=WIDTH, height=HEIGHT, backend="reference")
    assert parity_db(engine, reference, frames[1::2]) >= LOWEST_DB["int8"]
    assert engine.spec.precision == "int8"


@pytest.mark.parametrize("load", ["tensorrt"], indirect=True)
def test_a_plan_of_noise_is_refused(load: Load) -> None:
    from engine.backends.tensorrt.engine import TensorRtEngine

    with pytest.raises(PlanRefused, match=r"TensorRT .* refuses noise\.plan"):
        TensorRtEngine(b"noise" * 1000, load(WIDTH, HEIGHT).spec, name="noise.plan")
