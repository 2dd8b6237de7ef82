"""The log of every process: one event for a fact, with fields, as text for people or as JSON.

An event is a short constant phrase; what differs is in its fields, whose names docs/logs.md lists. Libraries,
which log through `logging`, come along. A worker logs as its gateway does, which says so in its environment.
"""

import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any, Literal, get_args

import msgspec
import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from server.wire.log_output import LogOutput
from server.wire.urls import mask_credentials

Log = BoundLogger
Format = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

ACCESS = "request"  # every one of them is wanted by whoever has them logged
_TO_CHILDREN = "LIVESR_LOG_AS"
# They tell of each packet.
_TALKATIVE = ("aiortc", "aioice", "asyncio", "uvicorn.error")
_WINDOW_S = 60.0
_MOST_KEYS = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_time = structlog.processors.TimeStamper(fmt="iso", utc=True)
_as: tuple[Format, int] = ("text", 10)
_changed: LogLevel | None = None


def get_logger(name: str) -> Log:
    logger: Log = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            _time,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=BoundLogger,
    )
    return logger


def stream_log(stream: str) -> Log:
    """For the parts of one stream: each line says which it is about."""
    return get_logger("server.worker").bind(stream=stream)


def log_to_stderr(form: Format = "text", level: LogLevel = "info", repeats_per_min: int = 10) -> None:
    """Begins to log. An event of one stream that comes more often is left out; the next says how often."""
    global _as, _changed
    _as = form, repeats_per_min
    handler = LogOutput()
    handler.setFormatter(_formatter(form))
    handler.addFilter(Repeats(repeats_per_min))
    logging.basicConfig(handlers=[handler])
    set_level(level)
    _changed = None


def set_level(level: LogLevel) -> None:
    """From now on, in this process."""
    global _changed
    _changed = level
    logging.root.setLevel(level.upper())
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))


def level() -> LogLevel:
    name = logging.getLevelName(logging.root.getEffectiveLevel()).lower()
    return next((known for known in get_args(LogLevel) if known == name), "info")


def changed_level() -> LogLevel | None:
    """The level, where it was set since the log began; processes of other machines know only the first."""
    return _changed


def for_children() -> dict[str, str]:
    """What a child's environment has to say for it to log as this process does."""
    form, repeats_per_min = _as
    return {_TO_CHILDREN: msgspec.json.encode((form, level(), repeats_per_min)).decode()}


def log_as_parent() -> None:
    """Begins to log as the process does that started this one."""
    said = os.environ.get(_TO_CHILDREN)
    if said is None:
        log_to_stderr()
    else:
        log_to_stderr(*msgspec.json.decode(said, type=tuple[Format, LogLevel, int]))


def _formatter(form: Format) -> ProcessorFormatter:
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    shown = _mask
    if form == "text":
        shown = _plain
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=32, sort_keys=False)
    return ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            _time,
            structlog.stdlib.ExtraAdder(allow=["left_out", "count"]),
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            # Not left to the renderer, whose way shows the variables of each frame, and the secrets in them.
            structlog.processors.format_exc_info,
            shown,
            renderer,
        ],
    )


def _mask(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Nobody who logs a URL gives away what is in it, whatever library said it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask_credentials(value)
    return event


def _plain(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """And nobody whose words are logged begins a line or tells a terminal anything. Tracebacks have lines."""
    masked = _mask(logger, method, event)
    for key, value in masked.items():
        if isinstance(value, str) and key != "exception":
            masked[key] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return masked


class Repeats(logging.Filter):
    """Lets an event of one stream through so many times a minute; another state of it is another event. What
    came above is told by the field `left_out` of the next that comes through."""

    def __init__(self, per_min: int) -> None:
        super().__init__()
        self._per_min = per_min
        self._windows: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        fields = record.msg if isinstance(record.msg, dict) else {"event": str(record.msg)}
        if fields.get("event") == ACCESS:
            return True
        key = record.name, *(str(fields.get(name, "")) for name in ("event", "stream", "state"))
        with self._lock:
            left_out = self._count(key, time.monotonic())
        if left_out is None:
            return False
        if left_out:
            fields["left_out"] = record.left_out = left_out
        return True

    def _count(self, key: tuple[str, ...], now_s: float) -> int | None:
        """How many were left out before this one; None where it is one of them."""
        began_s, count = self._windows.pop(key, (now_s, 0))
        left_out = 0
        if now_s - began_s >= _WINDOW_S:
            left_out, began_s, count = max(0, count - self._per_min), now_s, 0
        self._windows[key] = began_s, count + 1
        if len(self._windows) > _MOST_KEYS:
            self._windows.popitem(last=False)
        return None if count >= self._per_min else left_out
