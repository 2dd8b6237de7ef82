"""The service answers as its OpenAPI description says, whatever it is asked. `make fuzz` asks more."""

from tests.fuzz.openapi import fuzz_openapi
from tests.fuzz.service import STREAM
from tests.peers.service import Service


def test_every_answer_is_described(service: Service) -> None:
    statuses = fuzz_openapi(service, count=500, number=1)
    seen = {status.rpartition(" ")[2] for status in statuses}
    assert {"200", "201", "204", "400", "401", "403", "404", "422"} <= seen, f"of little use: {statuses}"
    assert service.show(STREAM)["state"] == "running"
