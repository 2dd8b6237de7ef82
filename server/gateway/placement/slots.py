"""Which GPU a worker gets: the one with the most free slots, and none where all are taken."""

from collections.abc import Sequence

from engine.machine import Gpu
from server.gateway.placement import SlotUse


class NoFreeSlot(OSError):
    """Every GPU has as many workers as the operator allows."""


class GpuSlots:
    def __init__(self, gpus: Sequence[Gpu], slots: int) -> None:
        if slots < 1:
            raise ValueError(f"{slots = } must be at least 1")
        self._slots = slots
        self._used = dict.fromkeys(gpus, 0)

    def take(self) -> Gpu:
        """The first of those with the fewest workers; raises NoFreeSlot."""
        gpu = min(self._used, key=self._used.__getitem__)
        if self._used[gpu] >= self._slots:
            gpus, all_slots = len(self._used), len(self._used) * self._slots
            raise NoFreeSlot(
                f"every GPU is full: {gpus} × gpu.slots={self._slots}, {all_slots} streams run on them"
            )
        self._used[gpu] += 1
        return gpu

    def give_back(self, gpu: Gpu) -> None:
        self._used[gpu] -= 1

    def usage(self) -> list[SlotUse]:
        return [SlotUse(gpu=gpu, used=used, slots=self._slots) for gpu, used in self._used.items()]
