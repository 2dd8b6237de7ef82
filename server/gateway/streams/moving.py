"""A stream goes from one worker to another."""

from typing import TYPE_CHECKING

from server.gateway.errors import NotMoved
from server.gateway.streams.supervisor import CantMove, Supervisor

if TYPE_CHECKING:
    from server.gateway.streams.stream import Stream


async def move(stream: "Stream", supervisor: Supervisor) -> bool:
    """Whether the other worker took over at a key frame, with no frame lost. Where nobody watches, or only
    one worker can have the source, it starts once the present one has ended. Raises NotMoved: then the
    stream goes on as it was."""
    if stream.state in ("failed", "quarantined", "stopped"):
        raise NotMoved(f"stream {stream.id!r} is {stream.state}")
    if not stream.audience.watches or stream.state != "running" or stream.entrance.takes_one:
        supervisor.renew()
        return False
    try:
        await supervisor.move()
    except CantMove as exc:
        raise NotMoved(f"stream {stream.id!r} goes on as it was: {exc}") from exc
    return True
