"""A running service lives through what it is sent, and gives back what it took. `make fuzz` sends more."""

from collections import Counter

import pytest

from tests.fuzz.live import LIVE
from tests.peers.service import Service


@pytest.mark.parametrize(
    ("name", "count", "seen"),
    [
        ("openapi", 300, {"200", "201", "204", "400", "401", "403", "404", "422"}),
        ("offers", 500, {"201", "204", "400"}),
        ("feedback", 500, {"sent", "anybody's"}),
        ("sources", 200, {"ts", "flv", "h264", "mp4", "m3u8"}),
    ],
)
def test_a_service_is_unharmed(service: Service, name: str, count: int, seen: set[str]) -> None:
    outcomes: Counter[str] = LIVE[name](service, count, 1)
    assert seen <= {outcome.rpartition(" ")[2] for outcome in outcomes}, f"of little use: {outcomes}"
