"""Where settings come from: a TOML file, above it the environment, above that the command line.

A secret may lie in a file of its own, which a `*_file` key names in its place.
"""

import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from server.settings import Settings
from server.settings.access import Token
from server.settings.stream import PipelineOptions, StreamSettings
from server.settings.table import describe_error
from server.settings.webrtc import IceServer

PREFIX, DELIMITER = "LIVESR_", "__"
_MOST_BYTES = 65_536

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """`key` of the tables at `where`, of that `kind`, can be held by the file that `file_key` names."""

    where: tuple[str, ...]
    kind: type[BaseModel]
    key: str
    file_key: str


SECRET_FILES = (
    SecretFile(where=("auth", "tokens"), kind=Token, key="sha256", file_key="token_file"),
    SecretFile(where=("webrtc", "ice_servers"), kind=IceServer, key="credential", file_key="credential_file"),
    SecretFile(where=("webrtc", "ice_servers"), kind=IceServer, key="secret", file_key="secret_file"),
    SecretFile(where=("defaults",), kind=PipelineOptions, key="push", file_key="push_file"),
    SecretFile(where=("streams",), kind=StreamSettings, key="push", file_key="push_file"),
    SecretFile(where=("streams",), kind=StreamSettings, key="source", file_key="source_file"),
)


class _Environment(Settings, BaseSettings):  # type: ignore[misc]  # of two kinds of model_config
    """The settings as pydantic-settings finds them in variables; never made."""


def load(path: Path | None, command_line: Mapping[str, Any] | None = None) -> Settings:
    """The settings of that file, the environment and these tables, whose streams come on top.

    Raises ValueError naming where it is from, the key, the value and the rule.
    """
    tables = _read_toml(path) if path else {}
    origins: dict[Key, str] = {}
    for name, found in _variables():
        origins |= dict.fromkeys(_leaves(found), name)
        _merge(tables, found)
    command_line = dict(command_line or {})
    more = list(command_line.pop("streams", ()))
    origins |= dict.fromkeys(_leaves(command_line), "command line")
    _merge(tables, command_line)
    if more:
        known = list(tables.get("streams", ()))
        origins |= {("streams", len(known) + n): "command line" for n in range(len(more))}
        tables["streams"] = [*known, *more]
    return _check(tables, str(path or "settings"), origins)


def overridden() -> dict[str, str]:
    """Keys that the environment decides, as "server.port", each with its variable. Raises ValueError."""
    return {".".join(map(str, key)): name for name, found in _variables() for key in _leaves(found)}


def check(tables: Mapping[str, Any], where: str) -> Settings:
    """Settings out of tables; raises ValueError naming their origin, the key, the value and the rule."""
    return _check(dict(tables), where, {})


def _check(tables: dict[str, Any], where: str, origins: Mapping[Key, str]) -> Settings:
    def origin(key: Key) -> str:
        return next((origins[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origins), where)

    for secret in SECRET_FILES:
        for key, table in _tables_at(tables, secret.where):
            if secret.file_key in table:
                try:
                    table[secret.key] = _held(table, secret)
                except ValueError as exc:
                    at = (*key, secret.file_key)
                    raise ValueError(f"{origin(at)}: {'.'.join(map(str, at))}{exc}") from exc
    try:
        return Settings.model_validate(tables)
    except ValidationError as exc:
        said: dict[str, list[str]] = {}
        for error in exc.errors():
            if not _is_a_default(error["loc"], tables):
                said.setdefault(origin(error["loc"]), []).append(describe_error(dict(error)))
        raise ValueError("; ".join(f"{name}: {'; '.join(errors)}" for name, errors in said.items())) from exc


def _is_a_default(key: Key, tables: Mapping[str, Any]) -> bool:
    """Whether a stream has it from [defaults], where what is wrong with it is said once for all streams."""
    match key:
        case ("streams", int(number), str(name), *_):
            return name in tables.get("defaults", ()) and name not in tables["streams"][number]
        case _:
            return False


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such settings file") from None
    except OSError as exc:
        raise ValueError(f"{path}: can't be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path}: not valid TOML: {exc}") from exc


def _variables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each variable that is a setting, with its tables. Raises ValueError naming the variable."""
    source = EnvSettingsSource(_Environment, env_prefix=PREFIX, env_nested_delimiter=DELIMITER)
    of_tables = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        table, nested, _ = name.partition(DELIMITER)
        if table not in of_tables:
            if nested and name.startswith(PREFIX):
                known = ", ".join(sorted(of_tables))
                raise ValueError(f"{name}: must begin with one of {known}")
            continue
        source.env_vars = {name.lower(): os.environ[name]}  # one at a time, so that an error names it
        try:
            yield name, source()
        except SettingsError:
            raise ValueError(f'{name}: must be JSON, as \'["a", "b"]\'') from None


def _leaves(tables: Mapping[str, Any], above: Key = ()) -> Iterator[Key]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key)


def _merge(tables: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Tables are merged key by key; what is no table, lists too, is replaced."""
    for key, value in others.items():
        known = tables.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping):
            _merge(known, value)
        else:
            tables[key] = value


def _tables_at(tables: Mapping[str, Any], where: tuple[str, ...]) -> Iterator[tuple[Key, dict[str, Any]]]:
    """The table at that path, or those of the list there, each with its path; none where there is another
    thing, which validation refuses."""
    value: Any = tables
    for key in where:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, dict):
        yield where, value
    for n, table in enumerate(value if isinstance(value, list) else ()):
        if isinstance(table, dict):
            yield (*where, n), table


def _held(table: dict[str, Any], secret: SecretFile) -> Any:
    """What the file holds, and no `file_key` any more. Raises ValueError with the rest of a line that begins
    with the key."""
    path = table.pop(secret.file_key)
    if secret.key in table:
        raise ValueError(f": must be left out where {secret.key} is given")
    if not isinstance(path, str):
        raise ValueError(f"={path!r}: must be the path of a file")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_BYTES).strip()
    except (OSError, ValueError) as exc:  # the latter of bytes that are no text
        reason = exc.strerror if isinstance(exc, OSError) else "it holds no text"
        raise ValueError(f"={path!r}: can't be read: {reason}") from exc
    if not text:
        raise ValueError(f"={path!r}: must hold something")
    match secret.key:
        case "sha256":
            return hashlib.sha256(text.encode()).hexdigest()
        case "push":
            return text.splitlines()
        case _:
            return text
