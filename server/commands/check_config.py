"""`livesr check-config`: whether the service would take these settings."""

import argparse
import json
import sys
from pathlib import Path

from server.gateway.auth.jwt import JwtVerifier
from server.settings.read import load, overridden
from server.settings.schema import settings_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, help="settings file (TOML); without one, the environment alone"
    )
    parser.add_argument("--schema", action="store_true", help="print the file's JSON schema, for editors")


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(json.dumps(settings_schema(), indent=2, ensure_ascii=False))
        return 0
    try:
        settings = load(args.file)
        settings.check_slates()
        if settings.auth and settings.auth.jwt:
            JwtVerifier(settings.auth.jwt)
        variables = overridden()
    except ValueError as exc:
        print(f"livesr check-config: {exc}", file=sys.stderr)
        return 1
    for key, variable in variables.items():
        print(f"{key}: by {variable}")
    streams = ", ".join(stream.id for stream in settings.streams) or "none"
    print(f"{args.file or 'settings'}: valid; streams from the start: {streams}")
    return 0
