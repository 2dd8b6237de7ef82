"""The machines of a cluster as they are known: what they have, what is free, and who is kept off which."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from server.gateway.placement import NodeUse

# What nodes say that they have (`livesr capacity --ray`) and hosts ask for: millions of source pixels a
# second, upscaled by bicubic. A network that takes more counts for more.
MEGAPIXELS, GPU = "livesr_megapixels", "GPU"
# Ray takes 16 s to see that a node is gone; it isn't asked for one that has just failed us.
AVOIDED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`has` and `free` by resource."""

    id: str
    name: str
    has: Mapping[str, float]
    free: Mapping[str, float]


def node_name(node: str, address: str) -> str:
    """What people call a node of that id."""
    return f"{address}-{node[:8]}"


class Nodes:
    def __init__(self, nodes: Iterable[Node], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self.look(nodes)
        self._avoided: dict[str, float] = {}  # until when
        self._drained: set[str] = set()

    def look(self, nodes: Iterable[Node]) -> None:
        """These are there now."""
        self._nodes = {node.id: node for node in nodes}

    def avoid(self, node: str) -> None:
        """It has just failed."""
        self._avoided[node] = self._clock_s() + AVOIDED_S

    def drain(self, name: str, *, drained: bool) -> None:
        """Raises KeyError."""
        found = {node.id for node in self._nodes.values() if node.name == name}
        if not found:
            raise KeyError(name)
        self._drained = self._drained | found if drained else self._drained - found

    def kept_off(self, *but_on: str) -> set[str]:
        """Nodes that nothing may be asked of; and those, where others are left."""
        now_s = self._clock_s()
        self._avoided = {node: until_s for node, until_s in self._avoided.items() if until_s > now_s}
        kept_off = self._drained | self._avoided.keys()
        workers = {node.id for node in self._nodes.values() if node.has.get(MEGAPIXELS) or node.has.get(GPU)}
        return kept_off | set(but_on) if workers - kept_off - set(but_on) else kept_off

    def have(self, resource: str) -> bool:
        return any(node.has.get(resource, 0.0) for node in self._usable())

    def shortage(self, resource: str, demand: float, asked_for: float) -> str:
        """What is missing for that; "" where there is room. `asked_for` by others, who wait for it."""
        usable = [node for node in self._usable() if node.has.get(resource, 0.0)]
        if not usable:
            return f"no node of the cluster that may be used has {resource}: see `livesr capacity --ray`"
        free = [node.free.get(resource, 0.0) for node in usable]
        if max(free) >= demand and sum(free) - asked_for >= demand:
            return ""
        best = max(usable, key=lambda node: node.free.get(resource, 0.0))
        return (
            f"no node of the cluster has room: one more stream takes {demand:.2f} {resource}, and the freest "
            f"of {len(usable)}, {best.name}, has {max(free):.2f} of {best.has[resource]:.2f} left"
        )

    def uses(self, streams: Iterable[tuple[str, str]]) -> list[NodeUse]:
        """`streams`, each with the node that it is on."""
        pairs = list(streams)
        return [
            NodeUse(
                name=node.name,
                has={name: node.has.get(name, 0.0) for name in (MEGAPIXELS, GPU)},
                free={name: node.free.get(name, 0.0) for name in (MEGAPIXELS, GPU)},
                streams=tuple(stream for stream, place in pairs if place == node.id),
                drained=node.id in self._drained,
            )
            for node in self._nodes.values()
        ]

    def _usable(self) -> list[Node]:
        kept_off = self.kept_off()
        return [node for node in self._nodes.values() if node.id not in kept_off]
