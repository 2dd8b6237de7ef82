"""Which GPU a stream gets: the least taken by measured time and memory, and none where all are full."""

import asyncio
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from engine.frame import USUAL_FPS
from engine.machine import Gpu
from engine.measure.gpu_costs import GpuCost, GpuCosts
from server.gateway.placement import SlotUse
from server.settings import Settings
from server.wire.logs import get_logger
from server.wire.messages import EngineLoad, GpuUse, Opened, SourceFormat, WorkerJob

log = get_logger(__name__)

# Of a network that was not measured on this GPU, a stream is taken for so large a part of it.
UNMEASURED_SLOTS = 4
# What CUDA takes for a process, and what is left to decoders, encoders and other programs.
_CONTEXT_BYTES, _USABLE_MEMORY = 512 << 20, 0.8
_ROUNDING = 1e-9


class NoFreeSlot(OSError):
    """No GPU has room for the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a stream takes of a GPU: share of its time, memory of its own, and of the engine, which those of
    one `engine` share."""

    time: float
    stream_bytes: int = 0
    engine_bytes: int = 0
    engine: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A stream as far as it is known: its network, its source's rate, and pixels of a picture."""

    model: str
    pixels: float
    fps: float = USUAL_FPS


class Seat:
    """A stream's place on a GPU."""

    def __init__(self, slots: "GpuSlots", gpu: Gpu, asked: Asked) -> None:
        self.gpu = gpu
        self.asked = asked
        self._slots = slots

    def hear(self, facts: EngineLoad | Opened) -> None:
        """It is known better what the stream takes, and what others of its network will."""
        match facts:
            case Opened(source=source):
                self.asked = _asked_of(self.asked.model, source)
            case EngineLoad(state="ready", gpu=GpuUse() as use):
                self._slots.learn(self, use, pixels=facts.width * facts.height)

    def leave(self) -> None:
        """Safe more than once."""
        self._slots.give_back(self)


class GpuSlots:
    """With `slots` so many streams for each GPU, whatever they take; with 0 as many as fit by what is
    measured. One that turns out to take more than was assumed stays where it is."""

    def __init__(
        self, gpus: Sequence[Gpu], slots: int, *, costs: GpuCosts, usable_share: float, usual: Asked
    ) -> None:
        """`usable_share` of a GPU's time is for streams. `usual`: whose number tells how many are free."""
        self._slots = slots
        self._costs = costs
        self._usable_time = usable_share if slots == 0 else 1.0
        self._usual = usual
        self._seats: dict[Gpu, list[Seat]] = {gpu: [] for gpu in gpus}

    def take(self, job: WorkerJob) -> Seat:
        """On the least taken of those with room; raises NoFreeSlot."""
        asked = replace(self._usual, model=job.model)
        if job.opened is not None:
            asked = _asked_of(job.model, job.opened.source)
        fitting = [gpu for gpu in self._seats if self._fits(gpu, self._need(gpu, asked))]
        if not fitting:
            raise NoFreeSlot(self._why_full(asked))
        gpu = min(fitting, key=lambda gpu: (self._taken(gpu), len(self._seats[gpu])))
        seat = Seat(self, gpu, asked)
        self._seats[gpu].append(seat)
        return seat

    def learn(self, seat: Seat, use: GpuUse, *, pixels: int) -> None:
        """What the stream of that seat takes by a picture of so many pixels."""
        megapixels = pixels / 1e6
        cost = GpuCost(
            s_per_megapixel=use.frame_s / megapixels,
            engine_bytes_per_megapixel=use.engine_bytes / megapixels,
            lane_bytes_per_megapixel=use.lane_bytes / megapixels,
        )
        if self._costs.learn(seat.gpu.name, seat.asked.model, cost):
            log.info(
                "model measured",
                model=seat.asked.model,
                gpu=seat.gpu.number,
                frame_s=use.frame_s,
                megapixels=megapixels,
                engine_bytes=use.engine_bytes,
                lane_bytes=use.lane_bytes,
            )
            asyncio.get_running_loop().run_in_executor(None, self._costs.store)

    def give_back(self, seat: Seat) -> None:
        if seat in self._seats[seat.gpu]:
            self._seats[seat.gpu].remove(seat)

    def usage(self) -> list[SlotUse]:
        return [
            SlotUse(gpu=gpu, used=len(seats), slots=len(seats) + self._free(gpu))
            for gpu, seats in self._seats.items()
        ]

    def _need(self, gpu: Gpu, asked: Asked) -> Need:
        if self._slots:
            return Need(time=1 / self._slots)
        cost = self._costs.of(gpu.name, asked.model)
        if cost is None:
            return Need(time=self._usable_time / UNMEASURED_SLOTS)
        megapixels = asked.pixels / 1e6
        return Need(
            time=cost.s_per_megapixel * megapixels * asked.fps,
            stream_bytes=round(cost.lane_bytes_per_megapixel * megapixels),
            engine_bytes=round(cost.engine_bytes_per_megapixel * megapixels),
            engine=(asked.model, asked.pixels),
        )

    def _needs(self, gpu: Gpu) -> list[Need]:
        return [self._need(gpu, seat.asked) for seat in self._seats[gpu]]

    def _time(self, gpu: Gpu) -> float:
        return sum(need.time for need in self._needs(gpu))

    def _bytes(self, gpu: Gpu, *more: Need) -> int:
        needs = [*self._needs(gpu), *more]
        engines = {need.engine: need.engine_bytes for need in needs}
        return sum(engines.values()) + sum(need.stream_bytes for need in needs)

    def _usable_bytes(self, gpu: Gpu) -> float:
        if self._slots or not gpu.memory_bytes:
            return math.inf
        return _USABLE_MEMORY * gpu.memory_bytes - _CONTEXT_BYTES

    def _fits(self, gpu: Gpu, *more: Need) -> bool:
        time = self._time(gpu) + sum(need.time for need in more)
        return time <= self._usable_time + _ROUNDING and self._bytes(gpu, *more) <= self._usable_bytes(gpu)

    def _taken(self, gpu: Gpu) -> float:
        """Share of what is usable, of time or of memory, whichever is scarcer."""
        return max(self._time(gpu) / self._usable_time, self._bytes(gpu) / self._usable_bytes(gpu))

    def _free(self, gpu: Gpu) -> int:
        """How many more of the usual streams fit."""
        need, free = self._need(gpu, self._usual), 0
        if not need.time:
            return 0
        while self._fits(gpu, *[need] * (free + 1)):
            free += 1
        return free

    def _why_full(self, asked: Asked) -> str:
        if self._slots:
            streams = sum(map(len, self._seats.values()))
            return (
                f"every GPU is full: {len(self._seats)} × gpu.slots={self._slots}, "
                f"{streams} streams run on them"
            )
        return "every GPU is full: " + "; ".join(self._why_no_room(gpu, asked) for gpu in self._seats)

    def _why_no_room(self, gpu: Gpu, asked: Asked) -> str:
        need, count = self._need(gpu, asked), len(self._seats[gpu])
        words = (
            f"on GPU {gpu.number} {count} streams take {self._time(gpu):.2f} of {self._usable_time:.2f} of "
            f"its time, and this one {need.time:.2f}"
        )
        if (usable := self._usable_bytes(gpu)) < math.inf:
            more = self._bytes(gpu, need) - self._bytes(gpu)
            words += f", {self._bytes(gpu) / 1e9:.1f} of {usable / 1e9:.1f} GB, and this one {more / 1e9:.1f}"
        return words


def usual_slots(gpus: Sequence[Gpu], settings: Settings, costs: GpuCosts) -> GpuSlots:
    """As the settings say; the usual stream is of the default model."""
    limits = settings.limits
    usual = Asked(model=settings.defaults.model, pixels=limits.assumed_pixels_per_s / USUAL_FPS)
    share = limits.usable_share or 1.0
    return GpuSlots(gpus, settings.gpu.slots, costs=costs, usable_share=share, usual=usual)


def _asked_of(model: str, source: SourceFormat) -> Asked:
    return Asked(model=model, pixels=source.width * source.height, fps=source.fps or USUAL_FPS)
