"""A stream goes from one worker to another."""

from collections.abc import Callable
from dataclasses import dataclass

from server.gateway.errors import NotChanged, NotMoved
from server.gateway.figures.views import StreamState
from server.gateway.streams.supervisor import CantMove, Supervisor
from server.wire.messages import WorkerJob
from server.wire.urls import mask_credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a change of a stream came to. `lossless`: no frame was lost by it, none shown twice."""

    new_worker: bool
    lossless: bool


async def move(stream: str, state: StreamState, supervisor: Supervisor, *, beside: bool) -> bool:
    """Whether the other worker took over at a key frame, with no frame lost. Where it can't run `beside` the
    present one, or need not, it starts once that has ended. Raises NotMoved: then the stream goes on as it
    was."""
    if state in ("failed", "quarantined", "stopped"):
        raise NotMoved(f"stream {stream!r} is {state}")
    if not beside:
        supervisor.renew()
        return False
    try:
        await supervisor.move()
    except CantMove as exc:
        raise NotMoved(_goes_on(stream, exc)) from exc
    return True


async def change(
    stream: str, supervisor: Supervisor, job: WorkerJob, on_takeover: Callable[[], None]
) -> None:
    """Returns once a worker with that job has taken over at a key frame. Raises NotChanged: then the stream
    goes on as it was."""
    try:
        await supervisor.change(job, on_takeover)
    except CantMove as exc:
        raise NotChanged(f"{_goes_on(stream, exc)}; ?beside=false ends the present worker first") from exc


def _goes_on(stream: str, exc: CantMove) -> str:
    return f"stream {stream!r} goes on as it was: {mask_credentials(str(exc))}"
