"""Which networks streams have, and which larger ones they would."""

import time
from collections.abc import Iterable

from engine.frame import USUAL_FPS
from server.gateway.placement import Elsewhere
from server.gateway.streams.room import Room, Wish
from server.gateway.streams.stream import Stream


class Rooms:
    """Of machines that workers are on, each by what its hosts say is idle there."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._idle_cores: dict[str, float] = {}

    def of(self, place: Elsewhere) -> Room:
        self._idle_cores[place.node] = place.idle_cores
        return self._rooms.setdefault(place.node, Room(lambda: self._idle_cores[place.node]))


def sort_by_machine(
    streams: Iterable[Stream],
) -> tuple[list[Stream], list[tuple[Elsewhere, list[Stream]]]]:
    """Those whose worker is on this machine, and those of every other."""
    here: list[Stream] = []
    there: dict[str, tuple[Elsewhere, list[Stream]]] = {}
    for stream in streams:
        place = stream.figures.elsewhere
        (here if place is None else there.setdefault(place.node, (place, []))[1]).append(stream)
    return here, list(there.values())


def wishes(streams: Iterable[Stream]) -> list[Wish]:
    return [found for stream in streams if (found := wish(stream)) is not None]


def wish(stream: Stream) -> Wish | None:
    """Whether a larger network would do, if the machine has room for it."""
    beat = stream.figures.last_heartbeat
    if stream.state != "running" or beat is None or not beat.steady or not stream.level:
        return None
    return Wish(
        stream=stream.id,
        priority=stream.settings.priority,
        created=stream.created,
        level=stream.level,
        fps=stream.figures.recent.fps(time.monotonic()),
        frame_cpu_s=beat.frame_cpu_s,
    )


def pixels_per_s(stream: Stream) -> float:
    """Of its source, as it was last opened; 0 before."""
    if stream.opened is None:
        return 0.0
    source = stream.opened.source
    return source.width * source.height * (source.fps or USUAL_FPS)


def network(stream: Stream) -> str:
    """What upscales now; the model named, before anything does."""
    return stream.opened.engine.model if stream.opened else stream.settings.model
