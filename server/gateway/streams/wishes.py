"""Which networks streams have, and which larger ones they would."""

import time

from server.gateway.streams.room import Wish
from server.gateway.streams.stream import Stream


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


def network(stream: Stream) -> str:
    """What upscales now; the model named, before anything does."""
    return stream.opened.engine.model if stream.opened else stream.settings.model
