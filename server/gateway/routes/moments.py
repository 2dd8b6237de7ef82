"""Moments as queries name them."""

import math
from datetime import UTC, datetime, timedelta

from server.gateway.errors import InvalidRequest

_MOST_S = 1e9  # some thirty years


def span(from_: str, to: str | None, now: datetime, *, most_s: float = math.inf) -> tuple[datetime, datetime]:
    """From one moment to another, or to now. Raises InvalidRequest."""
    starts = moment("from", from_, now)
    ends = now if to is None else moment("to", to, now)
    if starts >= now:
        raise InvalidRequest(f"from={from_!r}: must be in the past")
    if ends <= starts:
        raise InvalidRequest(f"to={to!r}: must be later than from={from_!r}")
    lasts_s = (ends - starts).total_seconds()
    if lasts_s > most_s:
        until = "now" if to is None else f"to={to!r}"
        rule = f"must be at most {most_s / 3600:g} h"
        raise InvalidRequest(f"from={from_!r}: {lasts_s / 3600:.1f} h until {until}; {rule}")
    return starts, ends


def moment(key: str, text: str, now: datetime) -> datetime:
    """Of an RFC 3339 time, or of seconds before `now` as in "-600". Raises InvalidRequest."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(seconds) or not -_MOST_S < seconds <= 0:
            raise InvalidRequest(f"{key}={text!r}: seconds must be before now, as -600 is")
        return now + timedelta(seconds=seconds)
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # what a "+" becomes that nobody quoted
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        rule = "must be a time with its zone (RFC 3339) or negative seconds, as -600"
        raise InvalidRequest(f"{key}={text!r}: {rule}") from None
