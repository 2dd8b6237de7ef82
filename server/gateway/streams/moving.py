"""A stream goes from one worker to another."""

from server.gateway.errors import NotMoved
from server.gateway.figures.views import StreamState
from server.gateway.streams.supervisor import CantMove, Supervisor


async def move(stream: str, state: StreamState, supervisor: Supervisor, *, beside: bool) -> bool:
    """Whether the other worker took over at a key frame, with no frame lost. Where it can't run `beside` the
    present one, or need not, it starts once that has ended. Raises NotMoved: then the stream goes on as it
    was."""
    if state in ("failed", "quarantined", "stopped"):
        raise NotMoved(f"stream {stream!r} is {state}")
    if state != "running" or not beside:
        supervisor.renew()
        return False
    try:
        await supervisor.move()
    except CantMove as exc:
        raise NotMoved(f"stream {stream!r} goes on as it was: {exc}") from exc
    return True
