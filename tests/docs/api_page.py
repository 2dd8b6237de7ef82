"""docs/api.md, out of the service's own OpenAPI description."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx

from server.gateway.app import create_app
from server.settings import Settings
from tests.server.gateway.scripted_worker import ScriptedPlacement

_HEAD = """Written by `make generated` out of `/openapi.json`, which every service has.
Errors are JSON objects with `title`, `status` and `detail` (RFC 9457). Where `[auth]` is set, requests need
`Authorization: Bearer TOKEN`; [Security](security.md) says what each scope opens.
"""
_METHODS = ("get", "post", "put", "patch", "delete", "options")


async def _description() -> dict[str, Any]:
    transport = httpx.ASGITransport(create_app(Settings(), ScriptedPlacement()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        description: dict[str, Any] = (await client.get("/openapi.json")).json()
    return description


def page() -> str:
    return "\n".join(_page(asyncio.run(_description()))) + "\n"


def _page(api: dict[str, Any]) -> Iterator[str]:
    yield "# API\n"
    yield _HEAD
    tagged: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in api["paths"].items():
        for method in _METHODS:
            if method in operations:
                tag = operations[method].get("tags", ["Other"])[0]
                tagged.setdefault(tag, []).append((method.upper(), path, operations[method]))
    for tag, operations in tagged.items():
        yield f"## {tag}\n"
        for method, path, operation in operations:
            yield from _operation(method, path, operation)
    yield "## Objects\n"
    for name, schema in sorted(api["components"]["schemas"].items()):
        if "properties" in schema:
            yield from _object(name, schema)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n"
    if description := operation.get("description"):
        yield f"{description}\n"
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path":
            words = parameter.get("description", "")
            yield f"- `{parameter['name']}` ({parameter['in']}){': ' + words if words else ''}"
    if body := operation.get("requestBody"):
        yield f"- body: {_content(body)}"
    answers = [
        f"{status} {_content(answer)}".strip() for status, answer in sorted(operation["responses"].items())
    ]
    yield f"- answers: {', '.join(answers)}\n"


def _content(part: dict[str, Any]) -> str:
    kinds = []
    for media, of in part.get("content", {}).items():
        if media == "application/problem+json":
            continue
        kinds.append(_type(of.get("schema", {})) if media == "application/json" else media)
    return " or ".join(filter(None, kinds))


def _object(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if description := schema.get("description"):
        yield " ".join(description.split()) + "\n"
    yield "| Key | Type | |\n|---|---|---|"
    for key, rule in schema["properties"].items():
        words = " ".join(rule.get("description", "").split())
        yield f"| `{key}` | {_type(rule)} | {words} |".replace("||", "| |")
    yield ""


def _type(rule: dict[str, Any]) -> str:
    if "$ref" in rule:
        name = rule["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in rule:
        return " or ".join(_type(one) for one in rule["anyOf"])
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if rule.get("type") == "array":
        return f"list of {_type(rule.get('items', {}))}"
    if "const" in rule:
        return f"`{rule['const']}`"
    return str(rule.get("type", ""))


if __name__ == "__main__":
    print(page(), end="")
