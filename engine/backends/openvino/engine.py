"""The OpenVINO backend: CPU inference of an artifact, without PyTorch."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov

from engine.artifact import Artifact
from engine.backends.openvino.unshuffle import unshuffle
from engine.config import AwsrnConfig
from engine.errors import BackendUnavailable
from engine.frame import Colour, DeviceFrame, EngineSpec, Precision, YuvFrame, empty_output
from engine.machine import MOST_THREADS, cpu
from engine.net import Batch

_INPUTS, _OUTPUTS = ("y_in", "uv_in"), ("y_out", "uv_out")
_PLANES = (*_INPUTS, *_OUTPUTS)
# An INT8 graph carries its own ranges; what it leaves in float is BF16 where the CPU multiplies in it.
_HINTS: dict[Precision, str] = {
    "float32": "f32",
    "bf16": "bf16",
    "int8": "bf16" if cpu().fast_bf16 else "f32",
}


class OpenVinoEngine:
    """A frame graph compiled for one size, and for so many frames at once: one, unless told otherwise, since
    frames side by side are faster on a CPU (`livesr bench --batching`)."""

    def __init__(
        self,
        artifact: Artifact,
        colour: Colour,
        spec: EngineSpec,
        *,
        threads: int,
        lanes: int,
        batches: tuple[int, ...] = (1,),
    ) -> None:
        self.spec = spec
        self.batches = batches
        core = ov.Core()
        model = frame_model(core, artifact, colour)
        height, width = spec.height, spec.width
        self._compiled: dict[int, Any] = {}
        for size in batches:
            model.reshape({"y_in": [size, 1, height, width], "uv_in": [size, 2, height // 2, width // 2]})
            # One lane is being filled or emptied; the others compute side by side. On two cores with decoder
            # and encoder beside it, two frames on a thread each are a fifth faster than one after the other
            # on both. A batch has work for all threads.
            streams = max(1, lanes - 1) if size == 1 else 1
            self._compiled[size] = compile_model(core, model, artifact.manifest.precision, threads, streams)

    def lane(self) -> "OpenVinoLane":
        return OpenVinoLane(self.slot(), self.batch_lane(1), self.spec)

    def slot(self) -> "OpenVinoSlot":
        return OpenVinoSlot(self._compiled[1])

    def batch_lane(self, most: int) -> "OpenVinoBatchLane":
        requests = {
            size: compiled.create_infer_request() for size, compiled in self._compiled.items() if size <= most
        }
        return OpenVinoBatchLane(requests)


class OpenVinoSlot:
    """Buffers of one frame.

    Each plane is copied once on its way in, from the decoder's memory, whose rows lie apart, to the slot's,
    and once on its way out, where the copy is the pixel shuffle: by `take_into` to the caller's planes, those
    of an encoder's frame, say.
    """

    def __init__(self, compiled: Any) -> None:
        """`compiled` for one frame."""
        buffers = {
            name: np.empty(tuple(port.shape), np.uint8)
            for port in (*compiled.inputs, *compiled.outputs)
            for name in port.names & set(_PLANES)
        }
        self.buffers = buffers
        self.tensors = {name: ov.Tensor(buffer, shared_memory=True) for name, buffer in buffers.items()}
        self._y, self._uv = buffers["y_in"][0, 0], buffers["uv_in"][0]
        # (h, w, b²), and for U and V (h, w, 2·b²)
        self._packed_y, self._packed_uv = buffers["y_out"][0], buffers["uv_out"][0]

    def put(self, frame: YuvFrame | DeviceFrame) -> None:
        assert isinstance(frame, YuvFrame), "a CPU has no surfaces"
        if frame.y.shape != self._y.shape:
            raise ValueError(f"{frame.y.shape = } must be {self._y.shape}, which this engine was loaded for")
        self._y[...] = frame.y
        self._uv[0] = frame.u
        self._uv[1] = frame.v

    def take_into(self, planes: YuvFrame) -> None:
        half = self._packed_uv.shape[2] // 2
        unshuffle(self._packed_y, planes.y)
        unshuffle(self._packed_uv[:, :, :half], planes.u)
        unshuffle(self._packed_uv[:, :, half:], planes.v)


class OpenVinoBatchLane:
    """An infer request for each size of a batch. One frame is computed where it lies; several are copied into
    the batch's memory and out of it, which is little beside computing them."""

    def __init__(self, requests: dict[int, Any]) -> None:
        self._requests = requests
        self._in_flight: Sequence[OpenVinoSlot] = ()

    def submit(self, slots: Sequence[OpenVinoSlot]) -> None:
        request = self._of(slots)
        if len(slots) == 1:
            for name, tensor in slots[0].tensors.items():
                request.set_tensor(name, tensor)
        else:
            for name in _INPUTS:
                for target, slot in zip(request.get_tensor(name).data, slots, strict=False):
                    np.copyto(target, slot.buffers[name][0])
        request.start_async()
        self._in_flight = slots

    def wait(self) -> None:
        slots, self._in_flight = self._in_flight, ()
        request = self._of(slots)
        request.wait()
        if len(slots) > 1:
            for name in _OUTPUTS:
                for slot, source in zip(slots, request.get_tensor(name).data, strict=False):
                    np.copyto(slot.buffers[name][0], source)

    def _of(self, slots: Sequence[OpenVinoSlot]) -> Any:
        return self._requests[min(size for size in self._requests if size >= len(slots))]


class OpenVinoLane:
    """One frame in flight. `wait_into` saves a copy: `wait` has planes of its own."""

    def __init__(self, slot: OpenVinoSlot, lane: OpenVinoBatchLane, spec: EngineSpec) -> None:
        self._slot = slot
        self._lane = lane
        self._output = empty_output(spec)

    def submit(self, frame: YuvFrame) -> None:
        self._slot.put(frame)
        self._lane.submit([self._slot])

    def wait(self) -> YuvFrame:
        self.wait_into(self._output)
        return self._output

    def wait_into(self, planes: YuvFrame) -> None:
        self._lane.wait()
        self._slot.take_into(planes)


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
    Not pinned, or the engines of all worker processes would share the first cores.
    Raises ValueError for a number of threads that can't be, BackendUnavailable."""
    if not 0 <= threads <= MOST_THREADS:
        raise ValueError(f"threads={threads} must be from 0, for every core, to {MOST_THREADS}")
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
