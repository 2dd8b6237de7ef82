"""The OpenVINO backend: right pictures, right precisions, several frames in flight."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from engine.artifact import open_artifact
from engine.backends.openvino.engine import OpenVinoEngine, compile_model, frame_model
from engine.build import build
from engine.compile import compile_checkpoint
from engine.frame import Colour, Engine, FillingLane, YuvFrame
from engine.load import load_engine, load_net
from engine.network.checkpoint import load_checkpoint
from engine.sample_frames import DEFAULT, sample_frames
from engine.share import SharedEngine

Noise = Callable[..., YuvFrame]


def process(engine: Engine, frame: YuvFrame) -> list[np.ndarray]:
    lane = engine.lane()
    lane.submit(frame)
    out = lane.wait()
    return [out.y.copy(), out.u.copy(), out.v.copy()]


def differences(a: list[np.ndarray], b: list[np.ndarray]) -> list[float]:
    return [float(np.abs(x.astype(int) - y).max()) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("size", [(64, 48), (50, 34), (16, 16)], ids=str)
def test_a_luma_model_gives_the_references_frame(
    checkpoint: Path, noise: Noise, size: tuple[int, int]
) -> None:
    width, height = size
    engine = load_engine(checkpoint, width=width, height=height, precision="float32")
    reference = load_engine(checkpoint, width=width, height=height, backend="reference")
    frame = noise(width, height)
    ours, theirs = process(engine, frame), process(reference, frame)
    assert ours[0].shape == (2 * height, 2 * width)
    assert ours[1].shape == ours[2].shape == (height, width)
    assert max(differences(ours, theirs)) <= 1
    assert np.mean(ours[0] != theirs[0]) < 1e-3  # where the fifth digit decides the rounding


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_an_rgb_model_gives_the_references_frame_in_each_colour(
    rgb_checkpoint: Path, noise: Noise, matrix: str, full_range: bool
) -> None:
    colour = Colour(matrix=matrix, full_range=full_range)  # type: ignore[arg-type]
    engine = load_engine(rgb_checkpoint, width=40, height=32, colour=colour, precision="float32")
    reference = load_engine(rgb_checkpoint, width=40, height=32, colour=colour, backend="reference")
    frame = noise(40, 32)
    assert max(differences(process(engine, frame), process(reference, frame))) <= 1


def test_the_colour_makes_a_difference(rgb_checkpoint: Path, noise: Noise) -> None:
    frame = noise(32, 32)
    pictures = [
        process(load_engine(rgb_checkpoint, width=32, height=32, colour=colour, precision="float32"), frame)
        for colour in (Colour(matrix="bt601"), Colour(matrix="bt709"), Colour(full_range=True))
    ]
    assert max(differences(pictures[0], pictures[1])) > 1
    assert max(differences(pictures[1], pictures[2])) > 1


def test_frames_that_go_together_are_what_each_is_alone(
    tmp_path: Path, checkpoint: Path, noise: Noise
) -> None:
    """In batches that are full and those that are not; of streams that share the engine."""
    frames = [noise(64, 48, seed) for seed in range(8)]
    alone = load_engine(checkpoint, width=64, height=48, precision="float32")
    artifact = compile_checkpoint(load_checkpoint(checkpoint), "float32", tmp_path, [])
    engine = OpenVinoEngine(artifact, Colour(), alone.spec, threads=1, lanes=1, batches=(1, 2, 4))
    shared = SharedEngine(engine)
    lanes = [shared.join(0.2).lane() for _ in range(8)]
    for count in (4, 3, 1, 8):
        for lane, frame in zip(lanes[:count], frames, strict=False):
            lane.submit(frame)
        for lane, frame in zip(lanes[:count], frames, strict=False):
            output = lane.wait()
            assert max(differences([output.y, output.u, output.v], process(alone, frame))) <= 1


def test_lanes_hold_frames_of_their_own_in_flight(checkpoint: Path, noise: Noise) -> None:
    engine = load_engine(checkpoint, width=64, height=48)
    frames = [noise(64, 48, seed) for seed in range(9)]
    alone = [process(engine, frame) for frame in frames]
    lanes = [engine.lane() for _ in range(3)]
    for first in range(0, 9, 3):
        for lane, frame in zip(lanes, frames[first:], strict=False):
            lane.submit(frame)
        outputs = [lane.wait() for lane in lanes]  # each stays valid until its own lane's next submit
        for output, expected in zip(outputs, alone[first:], strict=False):
            assert differences([output.y, output.u, output.v], expected) == [0, 0, 0]
    assert max(differences(alone[0], alone[1])) > 0


def test_submit_takes_a_copy(checkpoint: Path, noise: Noise) -> None:
    engine = load_engine(checkpoint, width=64, height=48)
    frame, expected = noise(64, 48), process(engine, noise(64, 48))
    lane = engine.lane()
    lane.submit(frame)
    for plane in (frame.y, frame.u, frame.v):
        plane.fill(0)
    out = lane.wait()
    assert differences([out.y, out.u, out.v], expected) == [0, 0, 0]


@pytest.mark.parametrize("size", [(96, 128), (94, 126), (90, 122)], ids=str)
def test_wait_into_fills_planes_of_the_callers(checkpoint: Path, noise: Noise, size: tuple[int, int]) -> None:
    """Of any size up to the output's, their rows apart as an encoder's are."""
    engine = load_engine(checkpoint, width=64, height=48)
    expected = process(engine, noise(64, 48))
    height, width = size
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    memory = [np.zeros((rows, columns + 10), np.uint8) for rows, columns in shapes]
    y, u, v = (rows[:, : shape[1]] for rows, shape in zip(memory, shapes, strict=True))
    lane = engine.lane()
    assert isinstance(lane, FillingLane)
    lane.submit(noise(64, 48))
    lane.wait_into(YuvFrame(y=y, u=u, v=v))
    for rows, (tall, wide), plane in zip(memory, shapes, expected, strict=True):
        np.testing.assert_array_equal(rows[:, :wide], plane[:tall, :wide])
        assert not rows[:, wide:].any()


@pytest.mark.parametrize("backend", ["openvino", "reference"])
def test_a_frame_of_another_size_is_refused(checkpoint: Path, noise: Noise, backend: str) -> None:
    lane = load_engine(checkpoint, width=64, height=48, backend=backend).lane()
    with pytest.raises(ValueError, match=r"\(48, 32\) must be \(48, 64\), which this engine was loaded for"):
        lane.submit(noise(32, 48))


@pytest.mark.parametrize("model", ["checkpoint", "rgb_checkpoint"])
def test_what_carries_the_picture_stays_out_of_bf16(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in BF16")
    source = load_checkpoint(request.getfixturevalue(model))
    artifact = compile_checkpoint(source, "bf16", tmp_path, [])
    graph = frame_model(core, artifact, Colour())
    graph.reshape({"y_in": [1, 1, 48, 64], "uv_in": [1, 2, 24, 32]})
    compiled = compile_model(core, graph, "bf16", 0)
    precisions = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in ("Convolution", "Pad", "DepthToSpace"):
            names = info["originalLayersNames"].astype(str).split(",")
            precisions[names[0].removesuffix("/conv")] = info["runtimePrecision"].astype(str)
    in_float = {"skip", "shuffle", "pad", "pad_1", "chroma_conv", "chroma_shuffle", "to_rgb", "to_yuv"}
    in_float |= {"subsample_conv"}
    for name, precision in precisions.items():
        assert precision == ("f32" if name in in_float else "bf16"), name
    assert {"head", "tail", "skip", "chroma_conv"} <= precisions.keys()


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("model", ["checkpoint", "rgb_checkpoint"])
def test_an_artifact_serves_frames_and_images(
    model: str, precision: str, request: pytest.FixtureRequest, tmp_path: Path, noise: Noise
) -> None:
    path = request.getfixturevalue(model)
    out = tmp_path / f"net.{precision}"
    frames = sample_frames(DEFAULT)[:4]
    artifact = build(path, out, precision, frames)  # type: ignore[arg-type]
    assert artifact == open_artifact(out)
    engine = load_engine(out, width=64, height=48)
    assert engine.spec.precision == precision
    assert engine.spec.parity_db == artifact.manifest.parity_db
    assert engine.spec.parity_db is not None
    assert engine.spec.checkpoint_sha256 == load_checkpoint(path).sha256
    reference = load_engine(path, width=64, height=48, backend="reference")
    real = frames[1].yuv()
    crop = YuvFrame(
        y=np.ascontiguousarray(real.y[:48, :64]),
        u=np.ascontiguousarray(real.u[:24, :32]),
        v=np.ascontiguousarray(real.v[:24, :32]),
    )
    assert max(differences(process(engine, crop), process(reference, crop))) <= 6

    net, oracle = load_net(out), load_net(path, backend="reference")
    assert net.config == oracle.config
    for height, width in ((17, 23), (40, 31)):
        channels = net.config.channels
        x = frames[1].net_input(net.config.colour)[:, :channels, :height, :width]
        assert np.abs(net.run(x) - oracle.run(x)).max() <= 6
