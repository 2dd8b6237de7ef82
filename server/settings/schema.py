"""The settings file's JSON schema, for editors."""

from typing import Any

from server.settings import Settings
from server.settings.read import SECRET_FILES


def settings_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file as it is written: with the keys that name files of secrets."""
    schema = Settings.model_json_schema()
    for secret in SECRET_FILES:
        table = schema["$defs"][secret.kind.__name__]
        table["properties"][secret.file_key] = {
            "type": "string",
            "minLength": 1,
            "description": f"File that holds what would be {secret.key}",
        }
        if secret.key in table.get("required", ()):
            table["required"].remove(secret.key)
            table.setdefault("allOf", []).append(
                {"oneOf": [{"required": [secret.key]}, {"required": [secret.file_key]}]}
            )
    return schema
