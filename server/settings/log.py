"""What is logged, and how."""

from pydantic import Field

from server.settings.table import Table
from server.wire.logs import Format, LogLevel


class Log(Table):
    format: Format = "text"
    level: LogLevel = "info"
    repeats_per_min: int = Field(default=10, ge=1)  # of one event of one stream
    access: bool = False  # each HTTP request
