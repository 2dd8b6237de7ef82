"""Nothing that others send does worse than being refused. `make fuzz` tries 200 times as much."""

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_taken_or_refused(name: str) -> None:
    outcomes, _ = fuzz(TARGETS[name], 500, seed=1)
    assert sum(outcomes.values()) == 500
    assert len(outcomes) == 2 or not TARGETS[name].refusal, f"of no use: {outcomes}"


def test_an_empty_nal_unit_is_left_out() -> None:
    whole = TARGETS["access unit"].seeds[1]
    TARGETS["access unit"].run(whole + b"\0\0\1\0\0\1" + whole)
