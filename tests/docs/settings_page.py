"""docs/settings.md, out of deploy/livesr.toml and the rules of the models."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from server.settings.schema import settings_schema
from tests.conftest import ROOT

_TABLE = re.compile(r"#?(\[{1,2})([a-z_.]+)\]{1,2}")
_KEY = re.compile(r"(#?)([a-z_0-9]+) = (.+)")


@dataclass
class Setting:
    key: str
    value: str
    off: bool
    words: list[str]


@dataclass
class TableOf:
    name: str
    words: list[str]
    listed: bool  # [[name]]: as many as there are
    settings: list[Setting] = field(default_factory=list)


def parse(text: str) -> tuple[list[str], list[TableOf]]:
    """The head of the reference file, and its tables."""
    head, _, rest = text.partition("\n\n")
    tables: list[TableOf] = []
    words: list[str] = []
    for line in rest.splitlines():
        if line.startswith("# "):
            words.append(line[2:])
        elif found := _TABLE.fullmatch(line):
            tables.append(TableOf(name=found[2], words=words, listed=found[1] == "[["))
            words = []
        elif found := _KEY.fullmatch(line):
            tables[-1].settings.append(Setting(key=found[2], value=found[3], off=bool(found[1]), words=words))
            words = []
    return [line[2:] for line in head.splitlines() if line.startswith("# ")], tables


def page() -> str:
    head, tables = parse((ROOT / "deploy" / "livesr.toml").read_text())
    return "\n".join(_page(head, tables)) + "\n"


def _page(head: list[str], tables: list[TableOf]) -> Iterator[str]:
    yield "# Settings\n"
    yield "Written by `make generated` out of `deploy/livesr.toml`, the reference, and the rules.\n"
    yield "\n".join(head) + "\n"
    for table in tables:
        name = f"[[{table.name}]]" if table.listed else f"[{table.name}]"
        yield f"## {name}\n"
        if table.words:
            yield "\n".join(table.words) + "\n"
        rules = _rules(table.name)
        for setting in table.settings:
            yield f"### {table.name}.{setting.key}\n"
            yield rules.get(setting.key, "") + _default(table, setting) + "\n"
            if setting.words:
                yield "\n".join(setting.words) + "\n"


def _default(table: TableOf, setting: Setting) -> str:
    if table.listed:
        return f"Such as `{setting.value}`."
    return f"Off; such as `{setting.value}`." if setting.off else f"Default: `{setting.value}`."


def _rules(table: str) -> dict[str, str]:
    """What each key of the table may be, in words."""
    schema = settings_schema()
    properties: dict[str, Any] = schema["properties"]
    for name in table.split("."):
        properties = _resolved(schema, properties[name])["properties"]
    return {key: _in_words(schema, rule) for key, rule in properties.items()}


def _resolved(schema: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """The rule itself: of a reference, of what may be left out, of what there are many of."""
    for alternative in rule.get("anyOf", ()):
        if alternative.get("type") != "null":
            return _resolved(schema, alternative)
    if "$ref" in rule:
        return _resolved(schema, schema["$defs"][rule["$ref"].rpartition("/")[2]])
    if rule.get("type") == "array" and "$ref" in rule.get("items", {}):
        return _resolved(schema, rule["items"])
    return rule


def _in_words(schema: dict[str, Any], rule: dict[str, Any]) -> str:
    found = _resolved(schema, rule)
    if "enum" in found:
        return f"One of {', '.join(f'`{value}`' for value in found['enum'])}. "
    least, most = found.get("minimum"), found.get("maximum")
    kind = {"integer": "Integer", "number": "Number", "boolean": "`true` or `false`", "array": "List"}.get(
        found.get("type", ""), "Text"
    )
    if least is not None and most is not None:
        kind += f", {least:g} to {most:g}"
    elif least is not None:
        kind += f", at least {least:g}"
    return f"{kind}. "


if __name__ == "__main__":
    print(page(), end="")
