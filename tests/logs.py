"""What the code under test has logged, as events with their fields."""

from typing import Any

import pytest


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """Every event of that name, without what all events have."""
    usual = ("event", "logger", "timestamp")
    found = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [
        {key: value for key, value in event.items() if key not in usual}
        for event in found
        if event["event"] == name
    ]
