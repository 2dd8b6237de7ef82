"""A recorded file: what its name says, and where in it the pictures are."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

MOMENT = r"\d{8}T\d{6}\.\d{3}Z"  # UTC
_FORMAT = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file of a stream. While it grows, it can be played as far as it goes."""

    stream: str
    name: str  # the moment of its first picture
    starts: datetime
    ends: datetime
    size: int
    remote: bool = False  # it is in recording.remote, and not here


class Run(NamedTuple):
    """Pictures of a file that can be played by themselves: of one or more groups, each after a key frame."""

    offset: int
    size: int
    starts: int  # in ticks of the picture's clock
    ends: int
    frames: int = 0  # 0: written before they were counted

    def with_next(self, run: "Run") -> "Run":
        """Both as one."""
        return self._replace(size=self.size + run.size, ends=run.ends, frames=self.frames + run.frames)


def moment_name(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).strftime(_FORMAT)[:-3]}Z"  # milliseconds


def named_moment(name: str) -> datetime:
    """The reverse, of a name that is like `MOMENT`. Raises ValueError where there is no such day or hour."""
    return datetime.strptime(name.removesuffix("Z"), _FORMAT).replace(tzinfo=UTC)
