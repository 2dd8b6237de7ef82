"""What every table of the settings is, and how a wrong key or value is told."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from server.wire.urls import mask_credentials, mask_url

T = TypeVar("T", bound=BaseModel)

_SECRET = frozenset({"sha256", "credential", "secret", "push"})
# Where pydantic speaks of Python.
_RULES = {
    "extra_forbidden": "there is no such key",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
}


class Table(BaseModel):
    """Keys that it doesn't know are refused, and numbers that are none or infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """One table of that kind; raises ValueError naming its origin, the key, the value and the rule."""
    try:
        return kind.model_validate(table)
    except ValidationError as exc:
        errors = "; ".join(describe_error(dict(error)) for error in exc.errors())
        raise ValueError(f"{where}: {errors}") from exc


def describe_error(error: dict[str, object]) -> str:
    """One pydantic error as 'key=value: rule'; as the rule alone where it is of no one key."""
    location = error.get("loc", ())
    assert isinstance(location, tuple)
    key = ".".join(str(part) for part in location if part != "body") or ("body" if location else "")
    value = error.get("input")
    # Who takes one for the other writes a token where its hash belongs: that must not get into the log.
    hidden = isinstance(value, dict | list) or value is None or not _SECRET.isdisjoint(key.split("."))
    masked = repr(mask_url(value)) if isinstance(value, str) else mask_credentials(repr(value))
    shown = "" if hidden else f"={masked}"
    rule = _RULES.get(str(error.get("type")), str(error.get("msg", "")).removeprefix("Value error, "))
    return f"{key}{shown}: {rule}" if key else rule
