"""One service for all that is fuzzed here."""

from collections.abc import Iterator

import pytest

from tests.fuzz.service import fuzzed
from tests.peers.service import Service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with fuzzed() as service:
        yield service
