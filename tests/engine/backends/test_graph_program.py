"""What a lane of CUDA graphs does around them: in place of a captured one, its operations are run again."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.backends.cuda import device
from engine.backends.cuda.device import CudaHostSlot, CudaSlot, GraphProgram, Planes
from engine.frame import EngineSpec, YuvFrame
from tests.engine.backends.test_choose_lanes import SPEC
from tests.engine.backends.test_lanes import noise, same

Noise = Callable[..., YuvFrame]


class Replay:
    """A graph in the host's memory: each replay computes the result anew, of what its inputs hold."""

    def __init__(self, network: device.Network, inputs: Planes) -> None:
        self._network, self._inputs = network, inputs
        self.result = tuple(torch.zeros_like(plane) for plane in network(*inputs))
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for target, plane in zip(self.result, self._network(*self._inputs), strict=True):
            target.copy_(plane)

    def pool(self) -> object:
        return "the memory of the first"


class Device:
    torch_device = torch.device("cpu")

    def event(self) -> None: ...


def doubled(y: Tensor, uv: Tensor) -> Planes:
    up = torch.nn.functional.interpolate
    return 3 * up(y, scale_factor=2) + 1, 3 * up(uv, scale_factor=2) + 1


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, object, Replay]]:
    """Batch size, pool and graph of each capture, in their order."""
    seen: list[tuple[int, object, Replay]] = []

    def capture(network: device.Network, inputs: Planes, _: object, pool: object) -> object:
        graph = Replay(network, inputs)
        seen.append((len(inputs[0]), pool, graph))
        return device._Graph(graph=graph, result=graph.result, network=network)

    pinned = device.planes
    monkeypatch.setattr(device, "_capture", capture)
    monkeypatch.setattr(
        device, "planes", lambda *args, pinned_=pinned, **kw: pinned_(*args, **kw | {"pinned": False})
    )
    return seen


def run(program: GraphProgram, slots: Sequence[CudaSlot[YuvFrame]]) -> None:
    program.upload(slots)
    program.compute(len(slots))
    program.download(slots)


def expected(frame: YuvFrame) -> YuvFrame:
    y, u, v = (
        np.ascontiguousarray((3 * p + 1).repeat(2, 0).repeat(2, 1)) for p in (frame.y, frame.u, frame.v)
    )
    return YuvFrame(y=y, u=u, v=v)


def test_each_frame_of_a_batch_comes_back_to_its_own_slot(captured: list[tuple[int, object, Replay]]) -> None:
    spec: EngineSpec = SPEC
    asked: list[int] = []

    def network(size: int) -> device.Network:
        asked.append(size)
        return doubled

    program = GraphProgram(network, spec, Device(), (1, 2, 4))
    assert [(size, pool) for size, pool, _ in captured] == [
        (4, None),
        (2, "the memory of the first"),
        (1, "the memory of the first"),
    ]
    assert asked == [4, 2, 1]
    slots = [CudaHostSlot(spec, Device()) for _ in range(4)]
    for turn, count in enumerate((4, 3, 2, 1, 4)):
        frames = [noise(10 * turn + number, spec.width, spec.height) for number in range(count)]
        for slot, frame in zip(slots, frames, strict=False):
            slot.put(frame)
        run(program, slots[:count])
        for slot, frame in zip(slots, frames, strict=False):
            assert same(slot.take(), expected(frame))
    assert [graph.replays for _, _, graph in captured] == [3, 1, 1], "three frames go as four"


def test_a_slots_frame_fills_what_it_is_wanted_in(captured: list[tuple[int, object, Replay]]) -> None:
    program, slot, frame = (
        GraphProgram(lambda _: doubled, SPEC, Device()),
        CudaHostSlot(SPEC, Device()),
        noise(1, 32, 32),
    )
    slot.put(frame)
    run(program, [slot])
    whole = expected(frame)
    y, u, v = (np.zeros(shape, np.uint8) for shape in ((60, 62), (30, 31), (30, 31)))
    slot.take_into(YuvFrame(y=y, u=u, v=v))
    assert same(
        YuvFrame(y=y, u=u, v=v), YuvFrame(y=whole.y[:60, :62], u=whole.u[:30, :31], v=whole.v[:30, :31])
    )
    with pytest.raises(ValueError, match="must be 32×32"):
        slot.put(noise(0, 48, 32))
