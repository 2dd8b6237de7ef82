"""The OpenVINO backend: CPU inference of an artifact, without PyTorch."""

import math
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.artifact import Artifact
from engine.backends.openvino.unshuffle import unshuffle
from engine.config import AwsrnConfig
from engine.errors import BackendUnavailable
from engine.frame import Colour, EngineSpec, Precision, YuvFrame
from engine.machine import cpu
from engine.net import Batch

# An INT8 graph carries its own ranges; what it leaves in float is BF16 where the CPU multiplies in it.
_HINTS: dict[Precision, str] = {
    "float32": "f32",
    "bf16": "bf16",
    "int8": "bf16" if cpu().fast_bf16 else "f32",
}


class OpenVinoEngine:
    """A frame graph compiled for one size."""

    def __init__(
        self, artifact: Artifact, colour: Colour, spec: EngineSpec, *, threads: int, lanes: int
    ) -> None:
        self.spec = spec
        core = ov.Core()
        model = frame_model(core, artifact, colour)
        height, width = spec.height, spec.width
        model.reshape({"y_in": [1, 1, height, width], "uv_in": [1, 2, height // 2, width // 2]})
        # One lane is being filled or emptied; the others compute side by side. On two cores with decoder and
        # encoder beside it, two frames on a thread each are a fifth faster than one after the other on both.
        self._compiled = compile_model(core, model, artifact.manifest.precision, threads, max(1, lanes - 1))

    def lane(self) -> "OpenVinoLane":
        return OpenVinoLane(self._compiled.create_infer_request(), self.spec)


class OpenVinoLane:
    """One infer request with buffers of its own.

    Each plane is copied once on its way in, from the decoder's memory, whose rows lie apart, to the lane's,
    and once on its way out, where the copy is the pixel shuffle: by `wait_into` to the caller's planes, those
    of an encoder's frame, say, by `wait` to the lane's own.
    """

    def __init__(self, request: Any, spec: EngineSpec) -> None:
        height, width, scale = spec.height, spec.width, spec.scale
        self._request = request
        self._y = self._bind("y_in")
        self._uv = self._bind("uv_in")
        # (h, w, b²), and for U and V (h, w, 2·b²)
        self._packed_y, self._packed_uv = self._bind("y_out")[0], self._bind("uv_out")[0]
        half = scale * height // 2, scale * width // 2
        self._output = YuvFrame(
            y=np.empty((scale * height, scale * width), np.uint8),
            u=np.empty(half, np.uint8),
            v=np.empty(half, np.uint8),
        )

    def _bind(self, name: str) -> NDArray[np.uint8]:
        buffer = np.empty(self._request.get_tensor(name).shape, np.uint8)
        self._request.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
        return buffer

    def submit(self, frame: YuvFrame) -> None:
        if frame.y.shape != self._y.shape[2:]:
            raise ValueError(
                f"{frame.y.shape = } must be {self._y.shape[2:]}, which this engine was loaded for"
            )
        self._y[0, 0] = frame.y
        self._uv[0, 0] = frame.u
        self._uv[0, 1] = frame.v
        self._request.start_async()

    def wait(self) -> YuvFrame:
        self.wait_into(self._output)
        return self._output

    def wait_into(self, planes: YuvFrame) -> None:
        self._request.wait()
        half = self._packed_uv.shape[2] // 2
        unshuffle(self._packed_y, planes.y)
        unshuffle(self._packed_uv[:, :, :half], planes.u)
        unshuffle(self._packed_uv[:, :, half:], planes.v)


class OpenVinoNet:
    """A bare network compiled for every size."""

    def __init__(self, artifact: Artifact, precision: Precision, *, threads: int) -> None:
        core = ov.Core()
        self._compiled = compile_model(core, core.read_model(artifact.net), precision, threads)
        self._config = artifact.manifest.config

    @property
    def config(self) -> AwsrnConfig:
        return self._config

    def run(self, x: Batch) -> Batch:
        packed = self._compiled({"lr": np.ascontiguousarray(x, np.float32)})["sr"]
        batch, channels, height, width = x.shape
        _, packed_channels, rows, columns = packed.shape
        block = math.isqrt(packed_channels // channels)
        phases = packed.reshape(batch, channels, block, block, rows, columns)
        whole = phases.transpose(0, 1, 4, 2, 5, 3).reshape(batch, channels, block * rows, block * columns)
        scale = self._config.scale
        return np.ascontiguousarray(whole[:, :, : scale * height, : scale * width])


def devices() -> list[str]:
    """What OpenVINO finds on this machine, with the precisions that it computes in."""
    core = ov.Core()
    return [
        f"{device} ({', '.join(sorted(core.get_property(device, 'OPTIMIZATION_CAPABILITIES')))})"
        for device in core.available_devices
    ]


def frame_model(core: ov.Core, artifact: Artifact, colour: Colour) -> ov.Model:
    """The frame graph of that colour with the network in its gap."""
    frame, net = core.read_model(artifact.frame(colour)), core.read_model(artifact.net)
    net_in = _result(frame, "net_in").input_value(0)
    for consumer in net.input("lr").get_target_inputs():
        consumer.replace_source_output(net_in)
    sr = _result(net, "sr").input_value(0)
    for consumer in frame.input("net_out").get_target_inputs():
        consumer.replace_source_output(sr)
    results = [_result(frame, "y_out"), _result(frame, "uv_out")]
    parameters = [frame.input(name).get_node() for name in ("y_in", "uv_in")]
    return ov.Model(results, parameters, "frame")


def compile_model(
    core: ov.Core,
    model: ov.Model,
    precision: Precision,
    threads: int,
    streams: int = 1,
    *,
    counters: bool = False,
) -> Any:
    """`threads` = 0: as many as OpenVINO finds right; `streams` requests share them and run side by side.
    `counters`: a request tells how long each node took.
    Not pinned, or the engines of all worker processes would share the first cores."""
    properties = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": counters,
    }
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    try:
        return core.compile_model(model, "CPU", properties)
    except RuntimeError as exc:
        raise BackendUnavailable(f"openvino can't compile {precision} here: {exc}") from exc


def _result(model: ov.Model, name: str) -> Any:
    return model.output(name).get_node()
