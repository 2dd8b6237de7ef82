"""Requests by the OpenAPI description and against it: every answer of a running service is described."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.fuzz.service import STREAM, TOKEN
from tests.peers.service import Service

# The description can't say every rule, of a source for instance; and it says where 503 may be the answer.
UNCHECKED = [positive_data_acceptance, not_a_server_error]
SOURCE = "synthetic:?size=80x48&fps=1"


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def _text(context: schemathesis.SerializationContext, value: object) -> bytes:
    return str(value).encode(errors="replace")


ENDLESS = "/api/events"  # its answer has no end that could be judged


def fuzz_openapi(service: Service, count: int, number: int) -> Counter[str]:
    """About `count` requests, by that seed; half of them name the stream that stays.

    Returns how many answers had which status; raises what schemathesis says of one that isn't described.
    """
    schema = schemathesis.openapi.from_url(f"{service.url}openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    operations = [operation for operation in found if operation.path != ENDLESS]
    statuses: Counter[str] = Counter()
    how = settings(
        max_examples=max(1, count // len(operations) // len(GenerationMode)),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    with _made_streams_deleted(service):
        for operation, mode in product(operations, GenerationMode):
            cases = given(case=operation.as_strategy(generation_mode=mode))
            ask = _asker(service, statuses, valid=mode is GenerationMode.POSITIVE)
            with suppress(Unsatisfiable):  # there is no wrong way to ask for /healthz
                seed(number)(how(cases(ask)))()
    return statuses


def _asker(service: Service, statuses: Counter[str], *, valid: bool) -> Callable[[schemathesis.Case], None]:
    def ask(case: schemathesis.Case) -> None:
        _tame(case, valid=valid)
        answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
        assert service.process.poll() is None, service.log()[-3000:]
        statuses[f"{case.operation.label} {answer.status_code}"] += 1
        unchecked = UNCHECKED if _bad_body(case) else [*UNCHECKED, negative_data_rejection]
        case.validate_response(answer, excluded_checks=unchecked)

    return ask


def _bad_body(case: schemathesis.Case) -> bool:
    """Whether more is wrong with it than a missing token, which is put in, and a query that nobody minds."""
    body = case.meta.components.get(ParameterLocation.BODY) if case.meta else None
    return body is not None and body.mode is GenerationMode.NEGATIVE


def _tame(case: schemathesis.Case, *, valid: bool) -> None:
    """Half of the requests name the stream that is there, which none of them changes; and half of the valid
    ones a source that opens."""
    even = len(repr(case.path_parameters) + repr(case.body)) % 2
    parameters = case.path_parameters or {}
    if "stream" in parameters and (even or case.path == "/api/streams/{stream}"):
        parameters["stream"] = STREAM
    if valid and even and isinstance(case.body, dict) and "source" in case.body:
        case.body["source"] = SOURCE
    if case.method in ("DELETE", "PATCH") and parameters.get("stream") == STREAM:
        parameters["stream"] = f"not-{STREAM}"


@contextmanager
def _made_streams_deleted(service: Service) -> Iterator[None]:
    try:
        yield
    finally:
        for made in service.http.get("/api/streams").json():
            if made["id"] != STREAM:
                service.http.delete(f"/api/streams/{made['id']}")
