"""Where traces go (OpenTelemetry), and of how many frames."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from server.settings.table import Table


class Tracing(Table):
    endpoint: str = ""  # of a collector that takes OTLP by HTTP; empty: nothing is traced
    sample_ratio: float = Field(default=0.01, ge=0, le=1)  # of the frames; every call of the API is traced

    @field_validator("endpoint")
    @classmethod
    def _base_url(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
            raise ValueError(f"{endpoint!r} must look like http://HOST:4318")
        return endpoint
