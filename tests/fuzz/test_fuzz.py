"""Nothing that others send does worse than being refused. `make fuzz` tries 200 times as much."""

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_taken_or_refused(name: str) -> None:
    outcomes, _ = fuzz(TARGETS[name], 500, seed=1)
    assert sum(outcomes.values()) == 500
    assert len(outcomes) == 2 or not TARGETS[name].refusal, f"of no use: {outcomes}"
